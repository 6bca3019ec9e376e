// The npm package oidc-provider as an issuer: one client, one audience, tokens that are signed JWTs.
// node oidc_provider.mjs FOLDER  - FOLDER/node_modules has the package; prints its URL when it answers.
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";
import { readFileSync } from "node:fs";
import path from "node:path";

const where = path.join(process.argv[2], "node_modules", "oidc-provider");
const { main, exports } = JSON.parse(readFileSync(path.join(where, "package.json"), "utf8"));
const entry = main ?? exports["."]?.import ?? exports["."]?.default ?? exports["."] ?? exports;
const { default: Provider } = await import(pathToFileURL(path.join(where, entry)).href);

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "anna",
        client_secret: "a-secret-of-anna",
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
      },
    ],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({
          scope: "",
          audience: resource,
          accessTokenFormat: "jwt",
          accessTokenTTL: 300,
        }),
      },
    },
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
process.stdin.resume(); // until whoever started us is gone
process.stdin.on("end", () => process.exit(0));
