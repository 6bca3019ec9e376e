"""S3: a real server at the end of a link, and the gate that makes it misbehave."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from dataflow.testing.bed import Bed, Rule


@pytest.fixture
def client(bed: Bed) -> Iterator[Any]:
    client = bed.s3.client(attempts=1)
    yield client
    client.close()


@pytest.fixture
def bucket(client: Any) -> str:
    name = f"test-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    return name


def test_objects_cross_the_link(bed: Bed, client: Any, bucket: str):
    before = bed.link("cloud").bytes
    client.put_object(Bucket=bucket, Key="a", Body=bytes(3_000_000))
    crossed = bed.link("cloud").bytes - before
    assert 3_000_000 < crossed.to < 3_300_000
    before = bed.link("cloud").bytes
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == bytes(3_000_000)
    crossed = bed.link("cloud").bytes - before
    assert 3_000_000 < crossed.from_ < 3_300_000


def test_a_wrong_secret_is_refused(bed: Bed, client: Any, bucket: str):
    import botocore.session

    other = botocore.session.get_session().create_client(
        "s3", endpoint_url=bed.s3.endpoint, region_name="us-east-1",
        aws_access_key_id=bed.s3.access_key, aws_secret_access_key="wrong",
    )  # fmt: skip
    with pytest.raises(other.exceptions.ClientError, match="SignatureDoesNotMatch"):
        other.put_object(Bucket=bucket, Key="a", Body=b"x")
    other.close()


def test_conditions_of_a_put_are_kept(client: Any, bucket: str):
    client.put_object(Bucket=bucket, Key="a", Body=b"1", IfNoneMatch="*")
    with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="a", Body=b"2", IfNoneMatch="*")


def test_the_gate_answers_with_errors_as_often_as_told(bed: Bed, client: Any, bucket: str):
    bed.s3.fault(Rule("error", method="PUT", path="/bad", times=2))
    for _ in range(2):
        with pytest.raises(client.exceptions.ClientError, match="SlowDown"):
            client.put_object(Bucket=bucket, Key="bad", Body=bytes(500_000))
    client.put_object(Bucket=bucket, Key="bad", Body=b"now")
    client.put_object(Bucket=bucket, Key="good", Body=b"always")
    assert [rule.met for rule in bed.s3.rules] == [2]
    bed.s3.fault(Rule("error", method="GET", status=500, code="InternalError"))
    with pytest.raises(client.exceptions.ClientError, match="InternalError"):
        client.get_object(Bucket=bucket, Key="good")


def test_an_answer_is_cut_in_its_middle(bed: Bed, client: Any, bucket: str):
    import botocore.exceptions

    client.put_object(Bucket=bucket, Key="a", Body=bytes(1_000_000))
    bed.s3.fault(Rule("reset", method="GET", after=300_000))
    body = client.get_object(Bucket=bucket, Key="a")["Body"]
    with pytest.raises((botocore.exceptions.BotoCoreError, OSError)):
        body.read()


def test_a_question_is_cut_in_its_middle_and_leaves_nothing(bed: Bed, client: Any, bucket: str):
    import botocore.exceptions

    bed.s3.fault(Rule("reset", method="PUT", after=300_000))
    with pytest.raises((botocore.exceptions.BotoCoreError, OSError)):
        client.put_object(Bucket=bucket, Key="a", Body=bytes(1_000_000))
    bed.s3.restore()
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_answers_are_late_or_never_come(bed: Bed, client: Any, bucket: str):
    import botocore.exceptions

    client.put_object(Bucket=bucket, Key="a", Body=b"x")
    bed.s3.fault(Rule("delay", seconds=0.7))
    begun = time.monotonic()
    client.get_object(Bucket=bucket, Key="a")["Body"].read()
    assert time.monotonic() - begun >= 0.7
    bed.s3.fault(Rule("hang", method="GET"))
    with pytest.raises(botocore.exceptions.ReadTimeoutError):
        client.get_object(Bucket=bucket, Key="a")
    bed.s3.restore()
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"x"


def test_the_server_is_slow(bed: Bed, client: Any, bucket: str):
    bed.s3.slow(500_000)
    begun = time.monotonic()
    client.put_object(Bucket=bucket, Key="a", Body=bytes(500_000))
    assert time.monotonic() - begun > 0.9


def test_a_killed_server_comes_back_with_its_objects(bed: Bed, client: Any, bucket: str):
    client.put_object(Bucket=bucket, Key="a", Body=b"kept")
    cloud = bed.host("cloud")
    cloud.daemon("radosgw").kill()
    with pytest.raises(Exception, match=r"[Cc]onnect"):
        client.get_object(Bucket=bucket, Key="a")
    bed.repair()
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"kept"
    client.create_bucket(Bucket=f"{bucket}-more")
    cloud.daemon("gate").kill()
    bed.repair()
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"kept"


def test_a_hung_server_says_nothing(bed: Bed, client: Any, bucket: str):
    import botocore.exceptions

    bed.host("cloud").daemon("radosgw").hang()
    with pytest.raises(botocore.exceptions.ReadTimeoutError):
        client.list_objects_v2(Bucket=bucket)
    bed.restore()
    client.list_objects_v2(Bucket=bucket)
