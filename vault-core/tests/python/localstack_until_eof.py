"""Runs LocalStack until its standard input ends, so that it cannot outlive the test that started it."""

import os
import runpy
import sys
import threading


def watch():
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


threading.Thread(target=watch, daemon=True).start()
sys.argv = ["localstack"]
runpy.run_module("localstack.runtime.main", run_name="__main__")
