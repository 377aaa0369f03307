"""A server that speaks S3 on a free local port: that of moto, which checks signatures and permissions.

It runs in threads of this process. What it holds is made with botocore's own client, so that keys and bytes
arrive as Amazon's tools would send them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final
from urllib.request import ProxyHandler, Request, build_opener

import botocore.session
from botocore.config import Config
from moto.server import ThreadedMotoServer

REGION: Final = "eu-central-1"

_direct: Final = build_opener(ProxyHandler({}))


class S3Server:
    """Serves `http://127.0.0.1:<port>` while the `with` block lasts.

    `access_key` and `secret_key` belong to a user that may read every bucket and do nothing else.
    """

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.access_key = ""
        self.secret_key = ""

    def __enter__(self) -> S3Server:
        self._server.start()
        self._control("reset")  # all servers of a process hold the same: what an earlier one held is gone
        self._make_reader()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        _, port = self._server.get_host_and_port()
        return f"http://127.0.0.1:{port}"

    def client(self, service: str = "s3") -> Any:
        """botocore's client with all rights, for what only an owner does."""
        session = botocore.session.Session()
        session.set_config_variable("profile", None)
        return session.create_client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="owner",
            aws_secret_access_key="owner",
            config=Config(proxies={}, s3={"addressing_style": "path"}),
        )

    def bucket(self, name: str, objects: Mapping[str, bytes] = {}, **rest: Any) -> None:
        client = self.client()
        client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        for key, content in objects.items():
            client.put_object(Bucket=name, Key=key, Body=content, **rest)

    @contextmanager
    def strict(self) -> Iterator[None]:
        """A block in which every request must be signed by somebody who may make it."""
        self._check_after(0)
        try:
            yield
        finally:
            self._check_after(float("inf"))

    def _check_after(self, requests: float) -> None:
        self._control("reset-auth", str(requests))

    def _control(self, path: str, body: str = "") -> None:
        asked = Request(
            f"{self.url}/moto-api/{path}",
            data=body.encode(),
            headers={"Content-Type": "text/plain"},
            method="POST",
        )
        with _direct.open(asked, timeout=10) as answer:
            assert answer.status == 200

    def _make_reader(self) -> None:
        iam = self.client("iam")
        iam.create_user(UserName="reader")
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": "*"}],
        }
        iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        self.access_key, self.secret_key = key["AccessKeyId"], key["SecretAccessKey"]
