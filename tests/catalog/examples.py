"""Datasets, replicas and sites to test with."""

from __future__ import annotations

from typing import Any

from dataflow.datasets import Dataset, Extent, Replica, Variable


def dataset(name: str, site: str = "uva", key: str = "", **more: Any) -> Dataset:
    shape = more.pop("shape", (10, 3))
    dtype = more.pop("dtype", "float64")
    dims = more.pop("dims", ("time", "x")[: len(shape)])
    variable = Variable(name="x", dims=dims, shape=shape, dtype=dtype, nbytes=240)
    fields: dict[str, Any] = {
        "id": f"id-{site}-{name}",
        "name": name,
        "key": key or f"key-{name}",
        "kind": "array",
        "site": site,
        "owner": "anna",
        "extent": Extent(nbytes=240, variables=(variable,)),
    }
    return Dataset(**(fields | more))


def replica(of: Dataset, site: str = "", store: str = "data", **more: Any) -> Replica:
    fields: dict[str, Any] = {
        "key": of.key,
        "site": site or of.site,
        "store": store,
        "url": f"file:///data/{of.name}.zarr",
        "format": "zarr",
        "nbytes": 200,
    }
    return Replica(**(fields | more))
