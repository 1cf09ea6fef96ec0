"""Servers as a careful shop runs them: Kafka with TLS and SASL/SCRAM, Redis with TLS and a user of its own.

Reads   nothing
Writes  certificates, made anew by the program openssl, into the folder each server is given
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.children import HOST, reserve_port
from app.local import LocalRedis
from tests.support.servers import ApacheKafka

USER = "shop"


@dataclass(frozen=True, slots=True)
class Certificates:
    """A CA's certificate, and a server's for the address of loopback: certificate, key, both in one file."""

    ca: Path
    certificate: Path
    key: Path
    both: Path


def make_certificates(folder: Path) -> Certificates:
    """New ones, good for a day. Skips where the machine has no openssl."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("certificates are made with openssl, which is not on the PATH (apt-get install openssl)")
    folder.mkdir(parents=True, exist_ok=True)

    def run(*words: str) -> None:
        done = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    new = ("-newkey", "rsa:2048", "-nodes")
    run("req", "-x509", *new, "-days", "1", "-subj", "/CN=test-ca", "-keyout", "ca.key", "-out", "ca.pem")
    run("req", *new, "-subj", f"/CN={HOST}", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text(f"subjectAltName=IP:{HOST},DNS:localhost")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    run("x509", "-req", "-in", "server.csr", *signed, "-days", "1", "-out", "server.pem")
    both = folder / "both.pem"
    both.write_text((folder / "server.key").read_text() + (folder / "server.pem").read_text())
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key", both)


class SecuredKafka(ApacheKafka):
    """Apache Kafka with a second listener, for those who have a password: SASL/SCRAM over TLS."""

    def __init__(self, folder: Path, *, password: str) -> None:
        super().__init__(folder)
        self.certificates = make_certificates(folder / "certificates")
        self._password = password
        self._secured = reserve_port(0, "kafka's secured listener")

    @property
    def secured_servers(self) -> str:
        """Where the secured listener is."""
        return f"{HOST}:{self._secured.getsockname()[1]}"

    def options(self, password: str) -> dict[str, str]:
        """What librdkafka needs there."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": USER,
            "sasl.password": password,
            "ssl.ca.location": str(self.certificates.ca),
        }

    def add_user(self) -> None:
        """Give the user its password; asked over the open listener."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        secret = UserScramCredentialUpsertion(
            USER, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), self._password.encode()
        )
        for answer in admin.alter_user_scram_credentials([secret]).values():
            answer.result(timeout=30)

    def stop(self) -> None:
        super().stop()
        self._secured.close()

    def _properties(self, controller_port: int) -> dict[str, str]:
        found = super()._properties(controller_port)
        where = f"SECURED://{self.secured_servers}"
        return {
            **found,
            "listeners": f"{found['listeners']},{where}",
            "advertised.listeners": f"{found['advertised.listeners']},{where}",
            "listener.security.protocol.map": f"{found['listener.security.protocol.map']},SECURED:SASL_SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secured.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificates.both.resolve()),
        }


class SecuredRedis(LocalRedis):
    """Redis that speaks TLS alone, and knows one user."""

    def __init__(self, folder: Path, *, password: str) -> None:
        super().__init__(folder)
        self.certificates = make_certificates(folder / "certificates")
        self._password = password
        self._users = folder / "users.acl"
        self._users.write_text(f"user {USER} on >{password} ~* &* +@all\nuser default off\n")

    def url_with(self, password: str) -> str:
        """What a client with that password connects to."""
        return f"rediss://{USER}:{password}@{HOST}:{self.port}/0?ssl_ca_certs={self.certificates.ca}"

    @property
    def url(self) -> str:
        return self.url_with(self._password)

    def command(self) -> list[str]:
        words = super().command()
        port = words.index("--port")
        words[port : port + 2] = ["--port", "0", "--tls-port", str(self.port)]
        return [
            *words,
            "--tls-cert-file",
            str(self.certificates.certificate.resolve()),
            "--tls-key-file",
            str(self.certificates.key.resolve()),
            "--tls-ca-cert-file",
            str(self.certificates.ca.resolve()),
            "--tls-auth-clients",
            "no",
            "--aclfile",
            str(self._users.resolve()),
        ]

    def ready(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
            try:
                return not client.info("all")["loading"]
            except (redis.ConnectionError, redis.TimeoutError):
                return False
