"""Who has no mesh key, or another one, gets nowhere."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

import pytest
from rig import until

from edgenode.shell.identity import Identity, MeshKey, load_mesh_key
from tests.e2e.mesh import Mesh

pytestmark = pytest.mark.timeout(180)

REQUEST = b"GET /v1/nodes HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TLS_ALERT = 0x15  # the record type of RFC 8446 section 5.1
ANSWER_S = 15.0


def test_a_node_with_another_key_joins_nobody_and_both_logs_say_why(
    new_mesh: Callable[[], Mesh],
) -> None:
    ours, theirs = new_mesh(), new_mesh()
    here, there = ours.add(tasks=["edgenode.tasks.basic"]), theirs.add(tasks=["edgenode.tasks.basic"])
    for node, other in ((here, there), (there, here)):
        node.command += ["--join", other.peer]
        node.start()
    for node, other in ((here, there), (there, here)):
        until(
            lambda node=node, other=other: (  # type: ignore[misc]
                f"peer {other.peer} has a certificate of another mesh (wrong mesh key?)" in node.log_text()
                and "a caller at 127.0.0.1 was refused" in node.log_text()
            ),
            f"the log of {node.log} tells whom it called and who called",
        )
    ours.wait_ready()
    theirs.wait_ready()
    for node in (here, there):
        listed = node.send("GET", "/v1/nodes").json["nodes"]
        assert [member["id"] for member in listed] == [node.id]


def test_two_meshes_that_find_their_nodes_by_multicast_dns_do_not_call_each_other(
    new_mesh: Callable[[], Mesh],
) -> None:
    meshes = new_mesh(), new_mesh()
    for _ in range(2):
        for mesh in meshes:
            mesh.add(mdns=True, tasks=["edgenode.tasks.basic"]).start()
    for mesh in meshes:
        mesh.wait_ready()
    for mesh in meshes:
        for node in mesh.nodes:
            listed = node.send("GET", "/v1/nodes").json["nodes"]
            assert {member["id"] for member in listed} == {member.id for member in mesh.nodes}
            assert "another mesh" not in node.log_text()


def received(connection: socket.socket) -> bytes:
    """Everything until the other side closes, as the connection delivers it."""
    found = b""
    try:
        while chunk := connection.recv(65_536):
            found += chunk
    except (ssl.SSLError, ConnectionError):
        pass  # refused: what came before that counts
    return found


def without_certificate(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


def test_a_peer_port_says_nothing_to_who_has_no_certificate_of_the_mesh(mesh: Mesh) -> None:
    node = mesh.grow(1).nodes[0]
    address = ("127.0.0.1", node.peer_port)
    with socket.create_connection(address, timeout=ANSWER_S) as plain:
        member = Identity.generate().client_context(load_mesh_key(mesh.key))
        with member.wrap_socket(plain) as secured:
            secured.sendall(REQUEST)
            assert received(secured).startswith(b"HTTP/1.1 404")  # who has one is answered
    stranger = Identity.generate().client_context(MeshKey("stranger", (bytes(32),)))
    stranger.verify_mode = ssl.CERT_NONE
    callers = {
        "TLS 1.3 without a certificate": without_certificate(ssl.TLSVersion.TLSv1_3),
        "TLS 1.2 without a certificate": without_certificate(ssl.TLSVersion.TLSv1_2),
        "a certificate of another mesh": stranger,
    }
    for request in (REQUEST, UPGRADE):
        for who, context in callers.items():
            with socket.create_connection(address, timeout=ANSWER_S) as plain:
                try:
                    with context.wrap_socket(plain) as secured:
                        secured.sendall(request)
                        assert received(secured) == b"", who
                except (ssl.SSLError, ConnectionError):
                    continue  # refused in the handshake: nothing was said at all
        with socket.create_connection(address, timeout=ANSWER_S) as plain:
            plain.sendall(request)
            answer = received(plain)
            assert answer == b"" or answer[0] == TLS_ALERT, answer
            assert b"HTTP" not in answer
    assert "has no certificate" in node.log_text()
    assert node.ask("/readyz") == {"ready": True}
