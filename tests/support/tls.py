"""Nodes that speak TLS, with certificates of their own."""

import ssl
import subprocess

from support.kavachd import Kavachd


def make_certificate(folder, name: str) -> None:
    """`certificate.pem` and `key.pem` in `folder`, self-signed for localhost by an issuer called `name`."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"],
        check=True, capture_output=True,
    )


def trust(folder) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=folder / "certificate.pem")


def make_tls_node(folder, settings: dict | None = None) -> Kavachd:
    make_certificate(folder, "first")
    settings = (settings or {}) | {
        "http.tls_certificate_file": str(folder / "certificate.pem"),
        "http.tls_key_file": str(folder / "key.pem"),
    }
    return Kavachd(folder / "node", settings, tls=trust(folder))
