"""The processes that make the rows of a cache and write them into its array.

Each row goes to its own place with one positioned write, so that processes never wait for one
another, and a full disk is an error instead of the signal that a memory map would give.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from dpmed.data.cache.rows import RowRecord, RowSource

CHUNKS_AHEAD = 2  # a worker; enough to keep it busy while the journal is written
ROWS_WORTH_PROCESSES = 500  # starting processes takes about as long as decoding this many
CRASHED = "the decoder crashed on it or ran out of memory"


@dataclass(frozen=True, kw_only=True)
class RowWriter:
    """Makes rows and writes them into the array."""

    source: RowSource
    array_path: Path
    offset: int

    def write(self, rows: list[int]) -> list[RowRecord]:
        """Make these rows, write them in place and return their records."""
        images, records = self.source.make(rows)
        descriptor = os.open(self.array_path, os.O_WRONLY)
        try:
            for row, image in zip(rows, images, strict=True):
                _write_all(descriptor, image.tobytes(), self.offset + row * image.nbytes)
        finally:
            os.close(descriptor)
        return records


def make_rows(
    chunks: list[list[int]],
    source: RowSource,
    *,
    array_path: Path,
    offset: int,
    num_workers: int | None,
) -> Iterator[list[RowRecord]]:
    """Records of each chunk once its images are in the array, in the order of completion.

    A row on which a worker process dies gets a reason instead of stopping the rest.

    Args:
        chunks: row numbers, a list for each task.
        source: makes the rows.
        array_path: the array's file, already at its full size.
        offset: length of the file's header in bytes.
        num_workers: processes; 0 means this process, None all cores where there is enough to do.
    """
    writer = RowWriter(source=source, array_path=array_path, offset=offset)
    workers = num_workers
    if workers is None:
        few = sum(map(len, chunks)) < ROWS_WORTH_PROCESSES
        workers = 0 if few else _num_cores()
    if workers == 0:
        yield from map(writer.write, chunks)
        return
    pending = list(reversed(chunks))
    while pending:
        lost: list[list[int]] = []
        yield from _in_pool(writer, pending, lost, workers)
        yield from _one_by_one(writer, [row for chunk in lost for row in chunk])


def _in_pool(
    writer: RowWriter, pending: list[list[int]], lost: list[list[int]], workers: int
) -> Iterator[list[RowRecord]]:
    """Work off `pending`; where a process dies, leave its possible chunks in `lost`."""
    running: dict[Future[list[RowRecord]], list[int]] = {}
    with _pool(writer, workers) as pool:
        try:
            while pending or running:
                while pending and len(running) < workers * CHUNKS_AHEAD:
                    running[pool.submit(_write_in_worker, pending[-1])] = pending[-1]
                    pending.pop()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    records = future.result()
                    del running[future]
                    yield records
        except BrokenProcessPool:
            lost.extend(running.values())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(writer: RowWriter, rows: list[int]) -> Iterator[list[RowRecord]]:
    """Find the rows that kill their process; each of them takes a new pool."""
    pending = list(reversed(rows))
    while pending:
        with _pool(writer, 1) as pool:
            try:
                while pending:
                    yield pool.submit(_write_in_worker, pending[-1:]).result()
                    pending.pop()
            except BrokenProcessPool:
                yield [RowRecord(row=pending.pop(), reason=CRASHED)]


def _pool(writer: RowWriter, workers: int) -> ProcessPoolExecutor:
    # Not forked: the parent may hold torch's threads.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(writer,))


_writer: RowWriter | None = None  # of a worker process, sent once instead of with every chunk


def _start_worker(writer: RowWriter) -> None:
    global _writer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the pool
    _writer = writer


def _write_in_worker(rows: list[int]) -> list[RowRecord]:
    assert _writer is not None
    return _writer.write(rows)


def _num_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _write_all(descriptor: int, content: bytes, place: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, place)
        view, place = view[written:], place + written
