"""The pure parts, and those that need no process."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import moorage_managed
from moorage.domain.compute import Availability, Estimate, Requirements, RuntimeOption
from moorage.domain.observation import ReplicaState
from moorage.domain.retry import Backoff
from moorage.ports.provider import ProviderConfig
from moorage_managed.announce import announce
from moorage_managed.capacity import Reservation, Room, room
from moorage_managed.endpoints import Sight
from moorage_managed.gpus import parse_gpus
from moorage_managed.limits import process_limits
from moorage_managed.log_files import GENERATIONS, SUPERVISOR, LogWriter, read_since, read_tail
from moorage_managed.machine import parse_meminfo
from moorage_managed.observing import observation
from moorage_managed.offers import Market, make_offers
from moorage_managed.probe import Answer, read_answer
from moorage_managed.processes import ProcessId
from moorage_managed.restarts import CRASHES_IN_A_ROW, Crashes, GiveUp, StartAgain, after_crash
from moorage_managed.settings import LocalSettings
from moorage_managed.snapshot import ReplicaSnapshot, Snapshot
from moorage_managed.spec import EndpointSpec
from moorage_managed.tcp_ports import FreePorts

GB = 10**9


def settings(tmp_path: Path, **environ: str) -> LocalSettings:
    named = {f"MOORAGE_MANAGED_{name}": value for name, value in environ.items()}
    return LocalSettings.read(ProviderConfig(tmp_path, named))


class TestSettings:
    def test_the_driver_is_named_when_it_is_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="MOORAGE_MANAGED_DRIVER must be 'local'"):
            moorage_managed.provider(ProviderConfig(tmp_path, {"MOORAGE_MANAGED_DRIVER": "docker"}))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("MEMORY_GB", "lots"),
            ("MEMORY_GB", "0"),
            ("PRICE_PER_HOUR", "-1"),
            ("CPUS", "nan"),
            ("CPUS", "inf"),
        ],
    )
    def test_a_bad_number_is_named(self, tmp_path: Path, name: str, value: str) -> None:
        with pytest.raises(ValueError, match=f"MOORAGE_MANAGED_{name} must be a number"):
            settings(tmp_path, **{name: value})

    def test_a_price_of_nothing_is_a_price(self, tmp_path: Path) -> None:
        assert settings(tmp_path, PRICE_PER_HOUR="0").price_per_hour == 0

    @pytest.mark.parametrize(
        "value", ["0.0.0.0", "::", "224.0.0.1", "gpu-1.lan", "127.0.0.1:80", "300.1.1.1"]
    )
    def test_an_address_that_nobody_could_reach_is_refused(self, tmp_path: Path, value: str) -> None:
        with pytest.raises(ValueError, match="MOORAGE_MANAGED_HOST must be one IP address"):
            settings(tmp_path, HOST=value)

    def test_an_address_is_kept(self, tmp_path: Path) -> None:
        assert settings(tmp_path).host == "127.0.0.1"
        assert settings(tmp_path, HOST="10.1.2.3").host == "10.1.2.3"
        assert settings(tmp_path, HOST="FD00::0:1").host == "fd00::1"


class TestCapacity:
    def test_what_is_used_is_not_counted_twice(self) -> None:
        held = [Reservation("a", 4, used=3), Reservation("b", 2, used=5)]
        assert room(budget=20, available=10, reservations=held) == Room(20, 9)
        assert room(budget=8, available=100, reservations=held) == Room(8, 2)

    @given(
        st.integers(0, 100),
        st.integers(0, 100),
        st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=6),
    )
    def test_granting_what_is_free_never_exceeds_either_bound(
        self, budget: int, available: int, held: list[tuple[int, int]]
    ) -> None:
        reservations = [Reservation("x", reserved, used) for reserved, used in held]
        free = room(budget, available, reservations).free
        assert free >= 0
        if free:
            assert sum(r.reserved for r in reservations) + free <= budget
            assert sum(r.unused for r in reservations) + free <= available
        taken = [*reservations, Reservation("new", free)]
        assert room(budget, available, taken).free == 0


class TestRestarts:
    def test_the_waits_grow_until_it_gives_up(self) -> None:
        crashes, waits = Crashes(), []
        for second in range(10):
            crashes = crashes.crashed(float(second))
            step = after_crash(crashes, "exited with status 1", Backoff(0.5, 30), luck=0)
            if isinstance(step, GiveUp):
                break
            waits.append(step.after)
        assert waits == [0.5, 1, 2, 4]
        assert isinstance(step, GiveUp)
        assert f"{CRASHES_IN_A_ROW} times in a row" in step.reason

    def test_being_ready_forgives_a_row_but_not_a_window(self) -> None:
        crashes, now = Crashes(), 0.0
        for _ in range(12):
            now += 10
            crashes = crashes.crashed(now).ready()
        assert isinstance(after_crash(crashes.crashed(now + 1), "x", Backoff(1, 1), 0), GiveUp)
        assert isinstance(after_crash(crashes.crashed(now + 1000), "x", Backoff(1, 1), 0), StartAgain)


class TestLogFiles:
    def test_rotation_keeps_the_bound_and_the_order(self, tmp_path: Path) -> None:
        log = LogWriter(tmp_path, max_bytes=2000)
        for number in range(400):
            log.feed("0", f"line {number}\n".encode())
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(GENERATIONS)
        assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 3 * 2100
        numbers = [int(line.text.split()[1]) for line in read_tail(tmp_path, 10_000)[0]]
        assert numbers == list(range(numbers[0], 400))

    def test_a_reader_finds_its_place_after_rotations(self, tmp_path: Path) -> None:
        log, seen = LogWriter(tmp_path, max_bytes=500), []
        place = None
        for number in range(60):
            log.feed("0", f"line {number}\n".encode())
            if number % 7 == 0:
                lines, place = read_since(tmp_path, place)
                seen += [line.text for line in lines]
        lines, place = read_since(tmp_path, place)
        assert [*seen, *(line.text for line in lines)] == [f"line {n}" for n in range(60)]
        assert read_since(tmp_path, place) == ([], place)

    def test_lines_are_put_together_and_cleaned(self, tmp_path: Path) -> None:
        log = LogWriter(tmp_path)
        log.feed("0", b"hal")
        log.feed("1", b"other\n")
        log.feed("0", b"f\r10%\r100%\r\n\x1b[31mred\xff\nrest")
        log.finish("0")
        log.say("bye")
        lines, _ = read_tail(tmp_path, 10)
        assert [(line.replica, line.text) for line in lines] == [
            ("1", "other"), ("0", "100%"), ("0", "[31mred\N{REPLACEMENT CHARACTER}"), ("0", "rest"),
            (SUPERVISOR, "bye"),
        ]  # fmt: skip
        assert list(log.tail)[-1] == "rest"

    def test_a_line_without_end_does_not_fill_the_memory(self, tmp_path: Path) -> None:
        log = LogWriter(tmp_path)
        for _ in range(100):
            log.feed("0", b"x" * 4096)
        assert max(len(line.text) for line in read_tail(tmp_path, 100)[0]) <= 16 * 1024


# What `nvidia-smi --query-gpu=… --format=csv,noheader,nounits` prints, with a MIG parent among them.
SMI = """\
0, GPU-5e0c1f7a-0b6d-4f0e-9a51-3c1f3ad1d0aa, NVIDIA H200, 143771, 143161, 9.0
1, GPU-77aa33c1-9f6e-4d5a-8a0f-1f2f3f4f5f6f, NVIDIA GeForce RTX 4090, 24564, 20000, 8.9
2, GPU-00000000-0000-0000-0000-000000000000, NVIDIA A100-SXM4-80GB, [N/A], [N/A], 8.0
"""


class TestOffers:
    def test_nvidia_smi_is_read(self) -> None:
        first, second = parse_gpus(SMI)
        assert (first.name, first.compute_capability, first.offer_id) == ("H200", 9.0, "local-gpu-0")
        assert second.total == 24564 * 1024**2
        assert parse_gpus("NVIDIA-SMI has failed because it couldn't communicate with the driver\n") == []

    @staticmethod
    def need(total: int, replicas: int = 1) -> Requirements:
        estimate = Estimate(total, total / GB, ())
        options = (RuntimeOption("onnx", False, estimate), RuntimeOption("x", True, estimate))
        return Requirements(options, replicas, "hub")

    def test_engines_by_what_they_run_on(self, tmp_path: Path) -> None:
        engines: Mapping[str, str | None] = {"onnx": None, "sentence-transformers": "install torch"}
        gpus = [(gpu, Room(gpu.usable, gpu.usable)) for gpu in parse_gpus(SMI)]
        market = Market(32 * GB, Room(30 * GB, 20 * GB), gpus, engines)
        cpu, *others = make_offers(self.need(GB), market, settings(tmp_path))
        assert cpu.engines == ("onnx",)
        assert cpu.engines_missing == (("sentence-transformers", "install torch"),)
        assert cpu.note == "20.0 GB of 30.0 GB free"
        assert [(o.gpu, o.count, o.engines) for o in others] == [("H200", 1, ()), ("GeForce RTX 4090", 1, ())]

    @pytest.mark.parametrize(
        ("total", "replicas", "taken"),
        [(5 * GB, 1, False), (5 * GB, 5, True), (25 * GB, 1, True), (40 * GB, 1, False)],
    )
    def test_none_means_that_the_room_is_taken(
        self, tmp_path: Path, total: int, replicas: int, taken: bool
    ) -> None:
        market = Market(32 * GB, Room(30 * GB, 20 * GB), [], None)
        (offer,) = make_offers(self.need(total, replicas), market, settings(tmp_path))
        assert (offer.availability is Availability.NONE) is taken

    def test_the_operators_price_is_the_price(self, tmp_path: Path) -> None:
        market = Market(32 * GB, Room(30 * GB, 20 * GB), [], None)
        (offer,) = make_offers(self.need(GB), market, settings(tmp_path, PRICE_PER_HOUR="0.07"))
        assert offer.price_per_hour == 0.07
        assert "MOORAGE_MANAGED_PRICE_PER_HOUR" in offer.price_source

    def test_every_offer_is_at_home_on_this_machine(self, tmp_path: Path) -> None:
        gpus = [(gpu, Room(gpu.usable, gpu.usable)) for gpu in parse_gpus(SMI)]
        market = Market(32 * GB, Room(30 * GB, 20 * GB), gpus, None)
        named = LocalSettings.read(ProviderConfig(tmp_path, {}, machine="mill"))
        assert {offer.home for offer in make_offers(self.need(GB), market, named)} == {"mill"}


def test_meminfo_is_read() -> None:
    memory = parse_meminfo("MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   20000000 kB\n")
    assert (memory.total, memory.available) == (24000000 * 1024, 20000000 * 1024)
    assert 0 < memory.budget < memory.total


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n{}", Answer(True)),
        (b'HTTP/1.1 503 X\r\n\r\n{"stage": "loading"}', Answer(False, "loading")),
        (b"HTTP/1.1 503 X\r\n\r\n[1]", Answer(False)),
        (b"HTTP/1.1 404 Not Found\r\n\r\nno", Answer(False)),
        (b"SSH-2.0-OpenSSH\r\n", None),
        (b"", None),
    ],
)
def test_a_probe_reads_any_answer(raw: bytes, answer: Answer | None) -> None:
    assert read_answer(raw) == answer


def test_spec_and_snapshot_survive_their_files() -> None:
    spec = EndpointSpec("a", "local-cpu", 2, ("run", "it"), 10, 20, 1.5, env={"A": "b"})
    assert EndpointSpec.from_json(spec.to_json()) == spec
    remote = replace(spec, host="fd00::1")
    assert EndpointSpec.from_json(remote.to_json()) == remote
    assert (spec.url(80), remote.url(80)) == ("http://127.0.0.1:80", "http://[fd00::1]:80")
    assert "host" not in spec.to_json(), "a supervisor that is older than the choice of an address reads it"
    told = Snapshot(ProcessId(1, 2), (ReplicaSnapshot("0", "ready", ProcessId(3, 4), 80),), cgroups=("/x",))
    assert Snapshot.from_json(told.to_json()) == told
    for text in ("", "{}", "[]", '{"shim": 1}'):
        with pytest.raises(ValueError, match=r".*"):
            Snapshot.from_json(text)
        with pytest.raises(ValueError, match=r".*"):
            EndpointSpec.from_json(text)


def test_a_process_is_not_its_pid_alone() -> None:
    me = ProcessId.of(1)
    assert me is not None
    assert me.alive
    stranger = ProcessId(1, me.start + 1)
    assert not stranger.alive
    assert stranger.open() is None


def test_without_cgroups_the_process_itself_is_limited() -> None:
    limits = process_limits(8 * 1024**3, cpus=1)
    show = "import os, resource as r; print(r.getrlimit(r.RLIMIT_DATA)[0], len(os.sched_getaffinity(0)))"
    # The test has threads, but what runs between fork and exec here takes no lock.
    done = subprocess.run(
        [sys.executable, "-c", show], preexec_fn=limits.enter, capture_output=True, check=True
    )
    assert done.stdout.split() == [str(16 * 1024**3).encode(), b"1"]


def test_ports_taken_together_are_different(tmp_path: Path) -> None:
    ports = FreePorts(tmp_path / "ports")
    port = ports.take("127.0.0.2")
    with socket.socket() as check:
        check.bind(("127.0.0.2", port))
    ports.give_back(port)


def test_an_announcement_removes_the_sockets_of_the_dead(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)  # longer than a socket's address may be
    deep.mkdir()
    (deep / "no-socket").touch()
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    short = tmp_path / "d"
    short.symlink_to(deep)
    dead.bind(str(short / "dead"))
    dead.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as alive:
        alive.bind(str(short / "alive"))
        announce(deep, "the-name")
        assert alive.recv(100) == b"the-name"
    assert not (deep / "dead").exists()


class TestObserving:
    spec = EndpointSpec("one", "cpu", 1, ("serve",), GB, GB, 1.0)
    shim = ProcessId(1, 1)
    ready = ReplicaSnapshot("0", "ready", port=4000)

    def sight(self, spec: EndpointSpec, worker: str | None) -> Sight:
        return Sight(spec, Snapshot(self.shim, (self.ready,), worker=worker), deleting=False, shim=self.shim)

    def test_what_runs_the_spec_answers(self) -> None:
        for spec in (self.spec, replace(self.spec, replicas=2)):
            assert observation(self.sight(spec, self.spec.worker)).targets

    def test_what_runs_an_older_spec_does_not(self) -> None:
        changed = replace(self.spec, env={"A": "1"})
        seen = observation(self.sight(changed, self.spec.worker))
        assert [(r.state, r.url) for r in seen.replicas] == [(ReplicaState.STARTING, None)]

    def test_a_supervisor_of_an_older_release_is_believed(self) -> None:
        assert observation(self.sight(self.spec, None)).targets
