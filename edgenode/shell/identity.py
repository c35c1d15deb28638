"""Who is in the mesh, and who is who: the mesh key, and each node's own key and certificate.

Whoever has the mesh key can mint a certificate, so certificates never expire and nobody issues them: each
node makes its own. The node id is a hash of the public key in it, recomputed at every handshake from the key
that TLS proved, so an id cannot be claimed, only owned.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgenode.core.errors import RejectedInput
from edgenode.core.types import NodeId
from edgenode.shell.folders import make_durable_folder, sync_folder

KEY_BYTES: Final = 32
ID_BYTES: Final = 10  # 16 characters of base32
OWN_FILES: Final = "/proc/self/fd"
"""Where Linux shows the files that a process has open."""

# One label per use (RFC 5869 section 3.2): knowing what one yields says nothing of the others.
LABEL_MESH_ID: Final = b"edgenode mesh id 1"
LABEL_AUTHORITY: Final = b"edgenode certificate authority 1"

# Expiry would protect nothing, and a board without a battery clock boots in 1970. The first day is the
# earliest that X.509 can write, the last is its word for "never" (RFC 5280 section 4.1.2.5).
NOT_BEFORE: Final = datetime(1950, 1, 1, tzinfo=UTC)
NOT_AFTER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

MESH_ID_PATTERN: Final = re.compile(r"[a-z0-9-]{1,32}")

FILE_TEXT: Final = """\
# An edgenode mesh key. Whoever can read this file can join the mesh: keep it at mode 0600.
# To change the key: put a new one on a line above the old ones, node by node; when all nodes have it,
# remove the old ones in the same way. The mesh id stays as it is.
mesh {mesh_id}
{key}
"""


class BadMeshKey(RejectedInput):
    """The key file is missing, readable by others, or holds no key. Never quotes what is in it."""

    slug, title = "bad-mesh-key", "The mesh key file cannot be used"


class BadIdentity(RejectedInput):
    """Bytes or a certificate that belong to no node of ours."""

    slug, title = "bad-identity", "Not the identity of a node"


@dataclass(frozen=True, slots=True, repr=False)
class MeshKey:
    """The secret of a mesh. `keys[0]` is presented to others, all of them are accepted."""

    mesh_id: str
    keys: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"MeshKey(mesh_id={self.mesh_id!r}, {len(self.keys)} keys)"


def new_mesh_key(path: Path) -> MeshKey:
    """Write a new key to `path`, readable by its owner only.

    Raises:
        BadMeshKey: the file exists (a key is never overwritten), or cannot be written.
    """
    key = secrets.token_bytes(KEY_BYTES)
    made = MeshKey(_id_of_key(key), (key,))
    try:
        make_durable_folder(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise BadMeshKey(f"{path} exists; a mesh key is never overwritten") from error
    except OSError as error:
        raise BadMeshKey(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(FILE_TEXT.format(mesh_id=made.mesh_id, key=key.hex()))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)  # a part of a key is none, and would be in the way of the next
        raise BadMeshKey(f"cannot write {path}: {error.strerror}") from error
    return made


def load_mesh_key(path: Path) -> MeshKey:
    """Read a key file: keys in hex or base64, one a line, the newest first.

    A line `mesh ID` keeps the mesh's name through a change of keys; without it the oldest key gives it.

    Raises:
        BadMeshKey: what is wrong, and what to do about it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if os.name == "posix" and mode & 0o077:
                raise BadMeshKey(
                    f"{path} has mode {mode:04o}, so others can read the mesh key: chmod 600 {path}"
                )
            lines = file.read(65_536).splitlines()
    except OSError as error:
        raise BadMeshKey(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadMeshKey(f"{path} is not a text file") from error
    return _parse(path, lines)


def _parse(path: Path, lines: list[str]) -> MeshKey:
    mesh_id = ""
    keys: list[bytes] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("mesh "):
            mesh_id = text.removeprefix("mesh ").strip()
            if not MESH_ID_PATTERN.fullmatch(mesh_id):
                raise BadMeshKey(f"{path}, line {number}: a mesh id is 1 to 32 of a-z, 0-9 and -")
            continue
        key = _key_of(text)
        if key is None:
            raise BadMeshKey(f"{path}, line {number}: expected {KEY_BYTES} bytes in hex or base64")
        if key not in keys:
            keys.append(key)
    if not keys:
        raise BadMeshKey(f"{path} holds no key; `edgenode key new PATH` makes one")
    return MeshKey(mesh_id or _id_of_key(keys[-1]), tuple(keys))


def _key_of(text: str) -> bytes | None:
    try:
        is_hex = len(text) == 2 * KEY_BYTES
        key = bytes.fromhex(text) if is_hex else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    return key if len(key) == KEY_BYTES else None


def _derive(key: bytes, label: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=label).derive(key)


def _base32(raw: bytes) -> str:
    assert len(raw) == ID_BYTES
    return base64.b32encode(raw).decode("ascii").lower()


def _id_of_key(key: bytes) -> str:
    return _base32(_derive(key, LABEL_MESH_ID, ID_BYTES))


def _node_id(public: Ed25519PublicKey) -> NodeId:
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return NodeId(_base32(sha256(raw).digest()[:ID_BYTES]))


def peer_id(certificate_der: bytes) -> NodeId:
    """The id of the node whose key TLS proved with this certificate.

    Raises:
        BadIdentity: not a certificate, or of a kind of key that no node has.
    """
    try:
        public = x509.load_der_x509_certificate(certificate_der).public_key()
    except ValueError as error:
        raise BadIdentity("not a certificate") from error
    if not isinstance(public, Ed25519PublicKey):
        raise BadIdentity("the certificate's key is not Ed25519")
    return _node_id(public)


class Identity:
    """One node's own key pair.

    Lives in the node's store and nowhere else: an empty store makes a new member, never an old one without
    memory.
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.id = _node_id(private.public_key())

    def __repr__(self) -> str:
        return f"Identity({self.id})"

    @classmethod
    def generate(cls) -> Identity:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Identity:
        """The identity that `to_bytes` wrote. Raises BadIdentity."""
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(raw))
        except ValueError as error:
            raise BadIdentity("a node's private key is 32 bytes") from error

    def to_bytes(self) -> bytes:
        """The private key: 32 bytes, secret."""
        return self._private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    def server_context(self, mesh_key: MeshKey) -> ssl.SSLContext:
        """For accepting peers: TLS 1.3, and nobody without a certificate of this mesh."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER, mesh_key)
        context.num_tickets = 0  # a resumed session would skip the proof of the peer's key
        return context

    def client_context(self, mesh_key: MeshKey) -> ssl.SSLContext:
        """For calling peers: the same demands on whoever answers."""
        context = self._context(ssl.PROTOCOL_TLS_CLIENT, mesh_key)
        # Peers are known by their keys; names and addresses prove nothing here.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _context(self, protocol: int, mesh_key: MeshKey) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        authorities = [_Authority(key) for key in mesh_key.keys]
        for authority in authorities:
            context.load_verify_locations(cadata=_der(authority.vouch_for(authority)))
        chain = [authorities[0].certify(self._private.public_key(), self.id)]
        # Each older key vouches for the next newer one, so that a node which was not given the newest
        # key yet still accepts this certificate: a change of keys goes node by node, with no flag day.
        chain += [older.vouch_for(newer) for newer, older in pairwise(authorities)]
        password = secrets.token_hex(32)
        private = self._private.private_bytes(
            Encoding.PEM,
            PrivateFormat.PKCS8,
            BestAvailableEncryption(password.encode()),
        )
        pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
        with _brief_file(pem + private) as path:
            context.load_cert_chain(path, password=password)
        return context


class _Authority:
    """The certificate authority that a mesh key implies: the same at every node, and never stored."""

    def __init__(self, mesh_key: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(_derive(mesh_key, LABEL_AUTHORITY, 32))
        self._public = self._private.public_key()
        # The name differs from key to key, or OpenSSL would try a wrong authority of the same name.
        self._name = _name(f"edgenode mesh {_node_id(self._public)}")

    def certify(self, public: Ed25519PublicKey, node: NodeId) -> x509.Certificate:
        """A node's certificate."""
        builder = self._builder(public, _name(node))
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(is_authority=False), critical=True)
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        return builder.add_extension(both, critical=False).sign(self._private, None)

    def vouch_for(self, other: _Authority) -> x509.Certificate:
        """`other`'s certificate, signed by this authority; its own makes it a root."""
        builder = self._builder(other._public, other._name)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(is_authority=True), critical=True)
        return builder.sign(self._private, None)

    def _builder(self, public: Ed25519PublicKey, subject: x509.Name) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOT_BEFORE)
            .not_valid_after(NOT_AFTER)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._public), critical=False)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


@contextmanager
def _brief_file(content: bytes) -> Iterator[str]:
    """A file for an interface that reads files only, gone when the block ends; in memory, where that can be:
    a disk may be full.

    Its secret part must be encrypted: a kill in between may leave the file behind.
    """
    if hasattr(os, "memfd_create") and os.path.isdir(OWN_FILES):
        with os.fdopen(os.memfd_create("edgenode"), "wb") as held:
            held.write(content)
            held.flush()
            yield f"{OWN_FILES}/{held.fileno()}"
        return
    descriptor, path = tempfile.mkstemp(prefix="edgenode-", suffix=".pem")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield path
    finally:
        os.unlink(path)
