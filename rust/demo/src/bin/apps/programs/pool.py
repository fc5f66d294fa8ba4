"""Counts by a pool of processes and a pool of threads, for whoever connects to the socket."""

import multiprocessing
import socketserver
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

PROCESSES, THREADS = 2, 4


def add_one(number):
    return number + 1


class Handler(socketserver.StreamRequestHandler):
    count = 0

    def handle(self):
        work = threads.submit(lambda: processes.submit(add_one, Handler.count).result())
        Handler.count = work.result()
        children = len(multiprocessing.active_children())
        by = f"{children} processes, {threading.active_count()} threads"
        self.wfile.write(f"{Handler.count} by {by}\n".encode())


if __name__ == "__main__":
    processes = ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("fork"))
    # The first work starts all processes, before there are threads.
    processes.submit(add_one, 0).result()
    threads = ThreadPoolExecutor(THREADS)
    together = threading.Barrier(THREADS)
    list(threads.map(lambda _: together.wait(), range(THREADS)))
    with socketserver.UnixStreamServer(sys.argv[1], Handler) as server:
        server.serve_forever()
