from __future__ import annotations

import base64
import errno
import os
import ssl
import tempfile
from pathlib import Path

import pytest

from edgenode.shell.identity import (
    BadIdentity,
    BadMeshKey,
    Identity,
    MeshKey,
    load_mesh_key,
    new_mesh_key,
    peer_id,
)


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a TLS handshake in memory, or the SSLError of the end that refused."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    for end in ends:
        assert end.version() == "TLSv1.3"
    return ends


def key_of(*keys: bytes, mesh_id: str = "m") -> MeshKey:
    return MeshKey(mesh_id, keys)


A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


def test_a_new_key_file_is_readable_by_its_owner_only_and_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "mesh.key"
    made = new_mesh_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_mesh_key(path) == made
    assert len(made.keys[0]) == 32


def test_a_key_that_could_not_be_written_whole_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(handle: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    path = tmp_path / "mesh.key"
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refused)
        with pytest.raises(BadMeshKey, match="cannot write"):
            new_mesh_key(path)
    assert not path.exists()
    new_mesh_key(path)


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_certificates_are_loaded_also_where_no_disk_has_room(
    monkeypatch: pytest.MonkeyPatch, has_memory_files: bool
) -> None:
    if has_memory_files:
        monkeypatch.setattr(tempfile, "mkstemp", None)
    else:
        monkeypatch.delattr(os, "memfd_create")
    key = MeshKey("mesh", (b"k" * 32,))
    assert Identity.generate().server_context(key).get_ca_certs()


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mesh.key"
    made = new_mesh_key(path)
    with pytest.raises(BadMeshKey, match="never overwritten"):
        new_mesh_key(path)
    assert load_mesh_key(path) == made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_file_open_to_others_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "mesh.key"
    new_mesh_key(path)
    path.chmod(mode)
    with pytest.raises(BadMeshKey, match=f"{mode:04o}.*chmod 600 {path}"):
        load_mesh_key(path)


@pytest.mark.parametrize(
    "text", ["", "# only words\n", "mesh abc\n", "beef\n", "zz" * 32, "mesh Ö\n" + "00" * 32]
)
def test_a_damaged_key_file_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mesh.key"
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadMeshKey) as caught:
        load_mesh_key(path)
    assert "beef" not in str(caught.value)
    assert "zz" not in str(caught.value)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadMeshKey, match="No such file"):
        load_mesh_key(tmp_path / "none")


def test_the_mesh_id_survives_a_change_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "mesh.key"
    old = new_mesh_key(path)
    header, old_line = path.read_text(encoding="ascii").splitlines()[-2:]
    path.write_text("\n".join([header, base64.b64encode(B).decode(), old_line]), encoding="ascii")
    both = load_mesh_key(path)
    assert both == MeshKey(old.mesh_id, (B, *old.keys))
    path.write_text("\n".join([header, B.hex()]), encoding="ascii")
    assert load_mesh_key(path) == MeshKey(old.mesh_id, (B,))


def test_without_a_mesh_line_the_oldest_key_names_the_mesh(tmp_path: Path) -> None:
    path = tmp_path / "mesh.key"
    path.touch(mode=0o600)
    path.write_text(A.hex(), encoding="ascii")
    alone = load_mesh_key(path)
    path.write_text(f"{B.hex()}\n{A.hex()}\n", encoding="ascii")
    assert load_mesh_key(path).mesh_id == alone.mesh_id


def test_secrets_are_in_no_repr() -> None:
    node = Identity.generate()
    assert node.to_bytes().hex() not in repr(node)
    assert A.hex() not in repr(key_of(A))
    assert repr(A) not in repr(key_of(A))


def test_an_identity_survives_its_bytes() -> None:
    node = Identity.generate()
    assert Identity.from_bytes(node.to_bytes()).id == node.id
    assert len(node.id) == 16
    assert node.id == node.id.lower()
    with pytest.raises(BadIdentity):
        Identity.from_bytes(b"short")


def test_tls_proves_the_id_of_each_end() -> None:
    left, right = Identity.generate(), Identity.generate()
    client, server = shake_hands(left.client_context(key_of(A)), right.server_context(key_of(A)))
    for end, other in ((client, right), (server, left)):
        certificate = end.getpeercert(True)
        assert certificate is not None
        assert peer_id(certificate) == other.id


def test_what_is_no_certificate_of_a_node_has_no_id() -> None:
    with pytest.raises(BadIdentity):
        peer_id(b"nonsense")


def test_another_mesh_is_refused_by_tls() -> None:
    left, right = Identity.generate(), Identity.generate()
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(left.client_context(key_of(A)), right.server_context(key_of(B)))


def test_a_client_of_another_mesh_that_trusts_anybody_is_refused_by_the_server() -> None:
    left, right = Identity.generate(), Identity.generate()
    client = left.client_context(key_of(A))
    client.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(client, right.server_context(key_of(B)))


def test_a_client_without_a_certificate_is_refused() -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(stranger, Identity.generate().server_context(key_of(A)))


def test_a_node_cannot_certify_others() -> None:
    # A member's certificate is no authority: what it signs is not trusted (RFC 5280 section 4.2.1.9).
    from edgenode.shell import identity as module

    member, forged = Identity.generate(), Identity.generate()
    authority = module._Authority(A)
    own = authority.certify(member._private.public_key(), member.id)
    fake = module._Authority(B)
    fake._private, fake._public = member._private, member._private.public_key()
    fake._name = own.subject
    chain = [fake.certify(forged._private.public_key(), forged.id), own]
    client = forged.client_context(key_of(A))
    pem = b"".join(each.public_bytes(module.Encoding.PEM) for each in chain)
    key = forged._private.private_bytes(
        module.Encoding.PEM, module.PrivateFormat.PKCS8, module.NoEncryption()
    )
    with module._brief_file(pem + key) as path:
        client.load_cert_chain(path)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(client, Identity.generate().server_context(key_of(A)))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [((A,), (B, A)), ((B, A), (B,)), ((A,), (C, B, A)), ((C, B), (B, A)), ((C, B, A), (B,))],
)
def test_keys_change_node_by_node_without_cutting_the_mesh(
    mine: tuple[bytes, ...], theirs: tuple[bytes, ...]
) -> None:
    left, right = Identity.generate(), Identity.generate()
    shake_hands(left.client_context(key_of(*mine)), right.server_context(key_of(*theirs)))
    shake_hands(right.client_context(key_of(*theirs)), left.server_context(key_of(*mine)))


def test_older_tls_is_refused() -> None:
    node = Identity.generate()
    client = node.client_context(key_of(A))
    client.minimum_version = ssl.TLSVersion.TLSv1_2
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake_hands(client, node.server_context(key_of(A)))


def test_no_session_is_resumed() -> None:
    node = Identity.generate()
    assert node.server_context(key_of(A)).num_tickets == 0


def test_making_contexts_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Identity.generate().server_context(key_of(A))
    assert os.listdir(tmp_path) == []
