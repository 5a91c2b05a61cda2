"""Certificates for tests: CAs and what they sign, made once, written to files where asked."""

import datetime
import functools
from pathlib import Path

import trustme

_LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)


def authority(name: str = "ours") -> trustme.CA:
    """Return the CA of this name, the same one each time."""
    return _authority(name)


@functools.cache  # which would take a default for another argument than the same one given
def _authority(name: str) -> trustme.CA:
    return trustme.CA(organization_name=name)


@functools.cache
def issue(*names: str, by: str = "ours", expired: bool = False) -> trustme.LeafCert:
    """Return a certificate for `names`, signed by the CA called `by`."""
    begin = _LONG_AGO if expired else None
    end = _LONG_AGO + datetime.timedelta(days=1) if expired else None
    return authority(by).issue_cert(*names, not_before=begin, not_after=end)


def ca_file(directory: Path, name: str = "ours") -> Path:
    """Write the certificate of a CA."""
    return write(directory / f"ca-{name}.pem", authority(name).cert_pem.bytes())


def cert_file(directory: Path, leaf: trustme.LeafCert) -> Path:
    """Write a certificate with its chain, without its key."""
    return write(directory / "cert.pem", *(blob.bytes() for blob in leaf.cert_chain_pems))


def key_file(directory: Path, leaf: trustme.LeafCert) -> Path:
    """Write the key of a certificate."""
    return write(directory / "key.pem", leaf.private_key_pem.bytes())


def pair_file(directory: Path, leaf: trustme.LeafCert) -> Path:
    """Write a certificate with its key and its chain in one file."""
    return write(directory / "pair.pem", leaf.private_key_and_cert_chain_pem.bytes())


def write(path: Path, *blobs: bytes) -> Path:
    """Write `blobs` one after the other, and return where."""
    path.write_bytes(b"".join(blobs))
    return path
