"""Damages the journal of a process that was killed, then starts it: nothing acknowledged disappears in silence.

What can be told from an interrupted write is refused, with the file, the offset and what to do, and nothing is
changed on the disk; `journal.on_corruption = "skip"` goes on with the rest. sink/JOURNAL.md has the format.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.disk_faults import DiskFaults
from support.kavachd import Kavachd, event, wait_until

SEGMENT_HEADER_BYTES = 64
FRAME_HEADER_BYTES = 32
# A segment holds some fifty batches of one event.
SETTINGS = {"http.body_bytes_max": 4096, "journal.segment_bytes": 8192}
# So long that a process that is killed has stored nothing.
NOT_YET = {"store.batch_delay_ms": 60_000}
AT_ONCE = {"store.batch_delay_ms": 10}


@dataclass
class Frame:
    file: Path
    offset: int
    seq: int


def segments_of(node: Kavachd) -> list[Path]:
    return sorted(node.journal.glob("*.kvj"))


def frames_of(segment: Path) -> list[Frame]:
    data, frames, offset = segment.read_bytes(), [], SEGMENT_HEADER_BYTES
    while data[offset : offset + 4] == b"FRM1":
        payload_bytes, seq = struct.unpack_from("<IQ", data, offset + 4)
        frames.append(Frame(segment, offset, seq))
        offset += (FRAME_HEADER_BYTES + payload_bytes + 7) // 8 * 8
    return frames


class Acknowledged:
    """A node that was killed after it had acknowledged `count` batches of one event, and had stored `stored`."""

    def __init__(self, node: Kavachd, count: int, stored: int = 0):
        self.node = node
        self.events = [event() for _ in range(count)]
        self._take(self.events[:stored], AT_ONCE)
        assert node.stop() == 0
        self._take(self.events[stored:], NOT_YET)
        node.kill()
        node.settings |= AT_ONCE
        assert node.event_count() == stored

    def _take(self, events: list, settings: dict) -> None:
        self.node.settings |= SETTINGS | settings
        self.node.start()
        for one in events:
            assert self.node.post([one]).status == 202

    def segments(self) -> list[Path]:
        return segments_of(self.node)

    def refuses_to_start(self) -> str:
        """What it says; and it leaves the journal as it was."""
        before = self._contents()
        self.node.write_config()
        refusal = self.node.command("serve", check=False)
        assert refusal.returncode == 1
        assert before == self._contents()
        return refusal.stderr.splitlines()[-1]

    def _contents(self) -> dict:
        """Without what is preallocated."""
        return {path: path.read_bytes().rstrip(b"\0") for path in self.segments()}

    def starts(self, **settings) -> str:
        """What it logs until it is ready."""
        log_before = len(self.node.log())
        self.node.settings |= {key.replace("__", "."): value for key, value in settings.items()}
        self.node.start()
        return self.node.log()[log_before:]

    def check_stored(self, lost: set = frozenset()) -> None:
        """All events but those of the frames in `lost` are stored; these can be sent again, and then all is well."""
        node = self.node
        node.wait_for_events(len(self.events) - len(lost))
        keys = {e["idempotency_key"]: seq for seq, e in enumerate(self.events, 1)}
        stored = {keys[key] for (key,) in node.query("SELECT dedup_key FROM events")}
        assert stored == set(keys.values()) - lost
        for one in self.events:
            assert node.post([one]).status == 202
        node.wait_for_events(len(self.events))
        node.check_roll_ups()
        assert node.stop() == 0
        assert self.inspect()[0] == 0
        self.starts(journal__on_corruption="stop")

    def inspect(self) -> tuple[int, list[dict], str]:
        """Exit code, segments, and the same as text."""
        as_json = self.node.command("journal", "inspect", "--json", check=False)
        as_text = self.node.command("journal", "inspect", check=False)
        assert as_json.returncode == as_text.returncode
        return as_json.returncode, json.loads(as_json.stdout)["segments"], as_text.stdout


@pytest.fixture
def acknowledged(make_node):
    return lambda count, stored=0: Acknowledged(make_node(start=False), count, stored)


def flip(file: Path, offset: int, mask: int = 0x10) -> None:
    with open(file, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ mask]))


def cut(file: Path, size: int) -> None:
    with open(file, "r+b") as f:
        f.truncate(size)


# --- what an interrupted write looks like ------------------------------------------------------------------


def test_a_journal_without_damage_is_read_back_whole(acknowledged):
    node = acknowledged(120)
    code, segments, text = node.inspect()
    assert code == 0
    assert len(segments) >= 3
    assert [s["problem"] for s in segments] == [None] * len(segments)
    assert sum(s["frames"] for s in segments) == sum(s["events"] for s in segments) == 120
    assert [s["first_seq"] for s in segments[1:]] == [s["last_seq"] + 1 for s in segments[:-1]]
    assert all(s["file"] in text for s in segments)
    node.starts()
    node.check_stored()


@pytest.mark.parametrize("keep", [0, 4, FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + 20])
def test_a_tail_that_ends_within_a_frame_is_cut_off_and_the_rest_is_stored(acknowledged, keep):
    node = acknowledged(30)
    last = frames_of(node.segments()[-1])[-1]
    cut(last.file, last.offset + keep)
    torn_bytes = max(0, len(last.file.read_bytes().rstrip(b"\0")) - last.offset)  # zeros are no trace of a frame
    code, segments, text = node.inspect()
    assert (code, segments[-1]["problem"], segments[-1]["torn_bytes"]) == (0, None, torn_bytes)
    assert ("harmless" in text) == (keep > 0)
    assert f"{torn_bytes} torn bytes cut" in node.starts()
    node.check_stored(lost={last.seq})


@pytest.mark.parametrize("at", [0, 5, 9, 25, 30, FRAME_HEADER_BYTES + 3])
def test_a_bit_flipped_in_the_last_frame_is_taken_for_an_interrupted_write(acknowledged, at):
    node = acknowledged(30)
    last = frames_of(node.segments()[-1])[-1]
    flip(last.file, last.offset + at)
    log = node.starts()
    assert "0 damaged frames skipped" in log and "0 torn bytes cut" not in log
    node.check_stored(lost={last.seq})


def test_a_last_segment_that_was_made_and_not_written_is_no_damage(acknowledged):
    node = acknowledged(30)
    last = node.segments()[-1]
    last.with_name(f"{int(last.stem) + 1:020}.kvj").write_bytes(bytes(8192))
    node.starts()
    node.check_stored()


# --- damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 5, 9, 17, 25, 30, FRAME_HEADER_BYTES + 3])
@pytest.mark.parametrize("where", ["first", "last"])
def test_a_bit_flipped_in_an_acknowledged_frame_is_refused_or_skipped(acknowledged, where, at):
    node = acknowledged(30)
    segment = node.segments()[0 if where == "first" else -1]
    frame = frames_of(segment)[2]
    flip(segment, frame.offset + at)

    message = f"{segment}: acknowledged frame {frame.seq} is damaged at offset {frame.offset}"
    refusal = node.refuses_to_start()
    assert message in refusal
    assert "kavachd journal inspect" in refusal and 'journal.on_corruption = "skip"' in refusal
    code, segments, text = node.inspect()
    assert code == 1
    problem = f"acknowledged frame {frame.seq} is damaged at offset {frame.offset}, 1 frames lost"
    assert [s["problem"] for s in segments if s["problem"]] == [problem]
    assert f"{segment}  " in text and problem in text

    assert "1 damaged frames skipped" in node.starts(journal__on_corruption="skip")
    node.check_stored(lost={frame.seq})


def test_a_segment_cut_off_before_its_acknowledged_end_is_refused_or_skipped(acknowledged):
    node = acknowledged(120)
    segment = node.segments()[1]
    frames = frames_of(segment)
    cut(segment, frames[3].offset + 10)
    lost = {frame.seq for frame in frames[3:]}

    refusal = node.refuses_to_start()
    assert f"{segment}: acknowledged frame {frames[3].seq} is damaged at offset {frames[3].offset}" in refusal
    code, segments, _ = node.inspect()
    assert (code, segments[1]["problem"].split(", ")[-1]) == (1, f"{len(lost)} frames lost")

    assert f"{len(lost)} damaged frames skipped" in node.starts(journal__on_corruption="skip")
    node.check_stored(lost)


@pytest.mark.parametrize("position", [0, 1, -1])
def test_a_damaged_segment_header_is_refused_or_skipped(acknowledged, position):
    node = acknowledged(120)
    segment = node.segments()[position]
    lost = {frame.seq for frame in frames_of(segment)}
    flip(segment, 40)

    refusal = node.refuses_to_start()
    assert f"{segment}: the header is damaged at offset 0" in refusal
    assert "kavachd journal inspect" in refusal and 'journal.on_corruption = "skip"' in refusal
    code, segments, text = node.inspect()
    assert (code, segments[position]["problem"]) == (1, "the header is damaged at offset 0")
    assert "the header is damaged at offset 0" in text

    node.starts(journal__on_corruption="skip")
    assert segment.with_suffix(".kvj.damaged").exists()
    node.check_stored(lost)


def test_a_missing_segment_in_the_middle_is_refused_or_skipped(acknowledged):
    node = acknowledged(120)
    missing, behind = node.segments()[1:3]
    lost = {frame.seq for frame in frames_of(missing)}
    missing.unlink()

    refusal = node.refuses_to_start()
    assert f"acknowledged frame {min(lost)} is damaged" in refusal
    assert f"no segment is between it and {behind}" in refusal
    assert "on_corruption" in refusal

    assert f"{len(lost)} damaged frames skipped" in node.starts(journal__on_corruption="skip")
    node.check_stored(lost)


def test_a_missing_segment_that_was_not_stored_yet_is_refused_or_skipped(acknowledged):
    node = acknowledged(80, stored=5)
    stored_too, missing = node.segments()[:2]
    lost = {frame.seq for frame in frames_of(missing)}
    stored_too.unlink()
    missing.unlink()

    refusal = node.refuses_to_start()
    assert f"begins with frame {max(lost) + 1}, the store has frames up to 5: a segment is missing" in refusal
    assert "on_corruption" in refusal

    node.starts(journal__on_corruption="skip")
    node.check_stored(lost)


def test_a_journal_that_lacks_what_was_stored_is_refused_until_it_is_moved_away(acknowledged):
    node = acknowledged(30, stored=30)
    last = frames_of(node.segments()[-1])[-1]
    cut(last.file, last.offset)

    refusal = node.refuses_to_start()
    assert "the store is ahead of the journal (frame 30, journal ends at 29)" in refusal
    assert str(node.node.journal) in refusal and "move its .kvj files away" in refusal

    for segment in node.segments():
        segment.rename(segment.with_suffix(".away"))
    node.starts()
    node.check_stored()


def test_a_journal_of_a_newer_version_is_refused_and_left_alone(acknowledged):
    node = acknowledged(30)
    segment = node.segments()[-1]
    flip(segment, 8, mask=1 ^ 7)  # format 1 becomes 7

    refusal = node.refuses_to_start()
    assert f"{segment} has journal format 7, this kavachd reads up to 1" in refusal
    assert "start the newer version" in refusal
    node.node.settings["journal.on_corruption"] = "skip"
    assert "has journal format 7" in node.refuses_to_start()
    code, segments, text = node.inspect()
    assert (code, segments[-1]["problem"]) == (1, "journal format 7 is newer than this kavachd")
    assert "journal format 7 is newer than this kavachd" in text

    flip(segment, 8, mask=1 ^ 7)
    node.starts(journal__on_corruption="stop")
    node.check_stored()


def test_damage_that_is_found_while_it_runs_ends_the_storing_and_not_the_ingest(make_node):
    node = make_node(SETTINGS, start=False)
    faults = DiskFaults(node)
    node.start()
    faults.set("fdatasync kavach.db hold")
    events = [event() for _ in range(10)]
    assert node.post(events[:1]).status == 202
    faults.wait_for_hit()
    for one in events[1:]:
        assert node.post([one]).status == 202
    frame = frames_of(segments_of(node)[0])[4]
    flip(frame.file, frame.offset + FRAME_HEADER_BYTES)
    faults.clear()

    wait_until(lambda: "nothing more is stored until a restart" in node.log(), "the end of the storing")
    assert f"acknowledged frame {frame.seq} is damaged at offset {frame.offset}" in node.log()
    status = node.request("GET", "/v1/status").json()
    assert (status["status"], status["database"], status["journal"]) == ("degraded", "down", "ok")
    events.append(event())
    assert node.post(events[-1:]).status == 202
    assert node.stop() == 0

    node.settings["journal.on_corruption"] = "skip"
    node.start()
    node.wait_for_events(len(events) - 1)
    missing = {key for (key,) in node.query("SELECT dedup_key FROM events")} ^ {e["idempotency_key"] for e in events}
    assert missing == {events[frame.seq - 1]["idempotency_key"]}


def test_a_directory_that_is_no_journal_is_inspected_as_empty(make_node):
    node = make_node(start=False)
    node.folder.mkdir()
    node.write_config()
    shown = node.command("journal", "inspect", "--json")
    assert json.loads(shown.stdout)["segments"] == []
