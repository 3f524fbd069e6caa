"""Prints what the stock Python informer of namespaces tells, and at the end of its input what it holds."""

import sys
import time

from kubernetes import informer

from hub import core

spaces = informer.SharedInformer(core.list_namespace)


def prints(kind):
    return lambda space: print(kind, space.metadata.name, flush=True)


for kind, event in (("added", informer.ADDED), ("modified", informer.MODIFIED), ("deleted", informer.DELETED)):
    spaces.add_event_handler(event, prints(kind))


def fails(error):
    print("error", getattr(error, "status", "of the link"), flush=True)
    # The informer itself tries again without a rest.
    time.sleep(0.1)


spaces.add_event_handler(informer.ERROR, fails)
spaces.start()
sys.stdin.read()
print("holds", *sorted(space.metadata.name for space in spaces.cache.list()))
