"""What is said about the certificate of a server, and one that it makes for itself."""

import datetime
import hashlib
import ssl
import sys
import tempfile
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from cryptography import x509
from tests.helpers.certificates import (
    authority,
    ca_file,
    cert_file,
    issue,
    key_file,
    pair_file,
    write,
)
from trio.testing import memory_stream_pair

from trio_upper.server.certificates import ServerTLS, load, load_pem, make_self_signed, validity
from trio_upper.tls import BadCertificate

NAME = "server.example"
DAY = datetime.timedelta(days=1)


async def certificate_of(server: ServerTLS, name: str) -> bytes:
    """Return the certificate that a client sees, which trusts it, and expects `name`."""
    ours, theirs = memory_stream_pair()
    context = ssl.create_default_context(cadata=server.pem.decode())
    async with trio.open_nursery() as nursery:
        serving = trio.SSLStream(theirs, server.context, server_side=True)
        nursery.start_soon(serving.do_handshake)
        stream = trio.SSLStream(ours, context, server_hostname=name)
        await stream.do_handshake()
        seen: bytes = stream.getpeercert(binary_form=True)
    return seen


@pytest.mark.parametrize("name", ["localhost", "192.0.2.7", "2001:db8::7"])
async def test_a_self_made_certificate_is_for_the_names_and_addresses(name: str) -> None:
    """A client that trusts it finds this machine by each, and the fingerprint is right."""
    pem = make_self_signed([ip_address("192.0.2.7"), ip_address("2001:db8::7")])
    server = load_pem(pem, client_ca=None)
    seen = await certificate_of(server, name)
    assert server.fingerprint == f"SHA256:{hashlib.sha256(seen).hexdigest()}"
    assert server.warning(datetime.datetime.now(datetime.UTC)) is None


def test_each_self_made_certificate_is_a_new_one() -> None:
    """Its key has not been seen by anybody."""
    assert make_self_signed([]) != make_self_signed([])


def test_the_key_is_left_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the ssl module reads files only."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    load_pem(make_self_signed([]), client_ca=None)
    assert not [*tmp_path.iterdir()]


def test_without_a_place_for_that_file_it_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(BadCertificate, match=r"^cannot make a temporary file for the key: "):
        load_pem(make_self_signed([]), client_ca=None)


def test_without_the_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra that most people do not need."""
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(BadCertificate, match=r"pip install cryptography$"):
        make_self_signed([])


@pytest.mark.parametrize("demanding", [False, True])
def test_whether_clients_need_a_certificate(tmp_path: Path, demanding: bool) -> None:
    """With a CA for them they do."""
    client_ca = ca_file(tmp_path) if demanding else None
    server = load(cert=pair_file(tmp_path, issue(NAME)), key=None, client_ca=client_ca)
    assert server.needs_client_certificate is demanding


def test_the_certificate_of_a_server_is_the_first_of_its_file(tmp_path: Path) -> None:
    """Those of the CAs above it follow."""
    leaf = issue(NAME)
    server = load(cert=cert_file(tmp_path, leaf), key=key_file(tmp_path, leaf), client_ca=None)
    [first, *_] = leaf.cert_chain_pems
    assert server.certificate == ssl.PEM_cert_to_DER_cert(first.bytes().decode().strip())


def test_a_certificate_in_a_form_that_is_not_known_has_no_fingerprint(tmp_path: Path) -> None:
    """OpenSSL reads more forms than are worth reading; nothing is said about it then."""
    server = load(cert=pair_file(tmp_path, issue(NAME)), key=None, client_ca=None)
    odd = ServerTLS(server.context, b"-----BEGIN TRUSTED CERTIFICATE-----")
    assert odd.certificate is None
    assert odd.fingerprint is None
    assert odd.warning(datetime.datetime.now(datetime.UTC)) is None


@pytest.mark.parametrize("expired", [False, True])
def test_the_dates_are_those_of_the_certificate(expired: bool) -> None:
    """As another library reads them; years from 2050 on are written in another way (RFC 5280)."""
    others = [lasting(2001, 2061), lasting(1950, 2049), lasting(1960, 2050)]
    for pem in (issue(NAME, expired=expired).cert_chain_pems[0].bytes(), *others):
        read = x509.load_pem_x509_certificate(pem)
        dates = read.not_valid_before_utc, read.not_valid_after_utc
        assert validity(ssl.PEM_cert_to_DER_cert(pem.decode().strip())) == dates


def lasting(first: int, last: int) -> bytes:
    """Return a certificate that is valid from one year to another."""
    begin = datetime.datetime(first, 1, 1, tzinfo=datetime.UTC)
    leaf = authority().issue_cert(NAME, not_before=begin, not_after=begin.replace(year=last))
    return leaf.cert_chain_pems[0].bytes()


@pytest.mark.parametrize(
    ("when", "warning"),
    [
        (-1, "is not valid before 2001-01-01 00:00 UTC"),
        (0, None),
        (45, None),
        (47, "expires on 2001-03-02 00:00 UTC"),
        (60, "expired on 2001-03-02 00:00 UTC"),
    ],
)
def test_dates_that_need_attention_are_a_warning(
    tmp_path: Path, when: int, warning: str | None
) -> None:
    """Before the first day, in the last two weeks, and when it is over."""
    begin = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    leaf = authority().issue_cert(NAME, not_before=begin, not_after=begin + 60 * DAY)
    pair = write(tmp_path / "pair.pem", leaf.private_key_and_cert_chain_pem.bytes())
    server = load(cert=pair, key=None, client_ca=None)
    said = server.warning(begin + when * DAY)
    assert said == (f"the certificate {warning}" if warning else None)
