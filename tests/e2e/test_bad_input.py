"""Bad input at a real node: a 4xx problem that names the field, and nothing is stored."""

from __future__ import annotations

import json
import socket

import pytest

from tests.e2e.mesh import Node

pytestmark = pytest.mark.timeout(180)

MALFORMED: dict[str, tuple[bytes, int, str]] = {
    "malformed JSON": (b'{"task": "echo", ', 400, "body"),
    "not JSON at all": (b"\x00\xff\xfe", 400, "body"),
    "nothing": (b"", 400, "body"),
    "no task": (b"{}", 422, "task"),
    "an unknown task": (b'{"task": "no.such.task"}', 422, "task"),
    "a missing parameter": (b'{"task": "sleep"}', 422, "seconds"),
    "an extra parameter": (b'{"task": "sleep", "payload": {"seconds": 1, "minutes": 2}}', 422, "minutes"),
    "a parameter of a wrong type": (b'{"task": "sleep", "payload": {"seconds": "1"}}', 422, "seconds"),
    "an unknown field": (b'{"task": "echo", "payload": {"message": 1}, "prio": 1}', 422, "prio"),
    "a payload over a megabyte": (
        b'{"task": "echo", "payload": {"message": "%b"}}' % (b"x" * 1_048_577), 413, "payload",
    ),
}  # fmt: skip
HUGE_BYTES = 100 * 1024 * 1024
MEMORY_BYTES_MAX = 64 * 1024 * 1024


def stored(node: Node) -> set[str]:
    return {job.id for job in node.client.jobs(page=1000)}


def check_problem(status: int, content_type: str, body: bytes, field: str) -> None:
    assert content_type.startswith("application/problem+json")
    problem = json.loads(body)
    assert (problem["status"], problem["field"], problem["definite"]) == (status, field, True), problem
    assert 400 <= status < 500
    assert problem["detail"]


@pytest.mark.parametrize("case", MALFORMED)
def test_a_bad_submission_is_refused_by_field_and_nothing_is_stored(lone: Node, case: str) -> None:
    body, status, field = MALFORMED[case]
    before = stored(lone)
    answer = lone.send("POST", "/v1/jobs", body, headers={"Content-Type": "application/json"})
    assert answer.status == status, answer
    check_problem(answer.status, answer.headers["content-type"], answer.body, field)
    assert stored(lone) == before


@pytest.mark.parametrize("path", ["/v1/jobs/7", "/v1/jobs/0-0-0-0-0", "/v1/jobs/x/placement", "/v1/jobs/%00"])
def test_a_bad_id_is_refused(lone: Node, path: str) -> None:
    answer = lone.send("GET", path)
    assert answer.status == 400
    check_problem(answer.status, answer.headers["content-type"], answer.body, "id")


def test_an_id_that_no_job_has_is_not_found(lone: Node) -> None:
    answer = lone.send("GET", "/v1/jobs/01a20076-6aa3-73b1-9942-f3c6cffd410c")
    assert (answer.status, answer.json["definite"]) == (404, True)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in chunks"])
def test_a_body_of_100_megabytes_is_refused_without_being_kept(lone: Node, announced: bool) -> None:
    before, memory = stored(lone), peak_memory(lone)
    head = "POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {HUGE_BYTES}\r\n\r\n" if announced else "Transfer-Encoding: chunked\r\n\r\n"
    piece = b" " * 65_536
    framed = piece if announced else b"%x\r\n%b\r\n" % (len(piece), piece)
    with socket.create_connection(("127.0.0.1", lone.api_port), timeout=30) as connection:
        connection.sendall(head.encode())
        received = send_until_answered(connection, framed, HUGE_BYTES // len(piece))
    status, content_type, body = parse(received)
    assert status == 413
    check_problem(status, content_type, body, "body")
    assert stored(lone) == before
    assert peak_memory(lone) - memory < MEMORY_BYTES_MAX


def send_until_answered(connection: socket.socket, piece: bytes, count: int) -> bytes:
    """Send a body until all is sent or the other side has answered; returns the answer.

    The connection stays open at the other side for a while after that, so the answer's own length counts.
    """
    connection.setblocking(False)
    received, left = b"", b""
    sent = 0
    while sent < count and not received:
        left = left or piece
        try:
            left = left[connection.send(left) :]
            sent += not left
        except BlockingIOError:
            pass
        except ConnectionError:
            break
        received += read_now(connection)
    connection.settimeout(30)
    try:
        while not is_whole(received) and (chunk := connection.recv(65_536)):
            received += chunk
    except ConnectionError:
        pass  # what came before counts
    return received


def read_now(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except BlockingIOError:
        return b""


def is_whole(received: bytes) -> bool:
    return b"\r\n\r\n" in received and len(parse(received)[2]) == int(headers_of(received)["content-length"])


def headers_of(received: bytes) -> dict[str, str]:
    lines = received.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def parse(received: bytes) -> tuple[int, str, bytes]:
    """Status, type and body of an answer."""
    headers = headers_of(received)
    body = received.partition(b"\r\n\r\n")[2][: int(headers["content-length"])]
    return int(received.split()[1]), headers["content-type"], body


def peak_memory(node: Node) -> int:
    """The most memory that the node's process ever had, in bytes (proc(5), VmHWM)."""
    with open(f"/proc/{node.pid}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
