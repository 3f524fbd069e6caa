"""Watches from one revision to another, by the stock Python client. Reads a line when the hub has forgotten the first one."""

from kubernetes import watch

from hub import CLUSTERS, client, core, create_cluster, custom

MERGE = "application/merge-patch+json"


def label(name, value):
    body = {"metadata": {"labels": {"kept": value}}}
    return custom.patch_cluster_custom_object(**CLUSTERS, name=name, body=body, _content_type=MERGE)


def told(what, call, count=None, **options):
    """Prints the events of a watch, all in a second or the first `count`, and gives the last revision."""
    if count is None:
        options["timeout_seconds"] = 1
    events, stream = [], watch.Watch(return_type=options.pop("return_type", None))
    for event in stream.stream(call, **options):
        metadata = event["raw_object"]["metadata"]
        events.append(" ".join(filter(None, (event["type"], metadata.get("name"), *metadata.get("annotations", [])))))
        if len(events) == count:
            stream.stop()
    print(what, events)
    return stream.resource_version


def clusters(what, count=None, **options):
    return told(what, custom.list_cluster_custom_object, count, return_type="object", **CLUSTERS, **options)


def live():
    """Each event is the answer to what the script does when it sees the one before."""
    create_cluster("first")
    deeds = iter(
        (
            lambda: label("first", "yes"),
            lambda: create_cluster("second"),
            lambda: custom.delete_cluster_custom_object(**CLUSTERS, name="first"),
            lambda: None,
        )
    )
    stream = watch.Watch()
    for event in stream.stream(custom.list_cluster_custom_object, **CLUSTERS):
        print("live", event["type"], event["object"]["metadata"]["name"], event["object"]["kind"])
        if next(deeds)() is None:
            stream.stop()


def typed():
    stream = watch.Watch()
    for event in stream.stream(core.list_namespace, field_selector="metadata.name=default"):
        print("typed", event["type"], type(event["object"]).__name__, event["object"].status.phase)
        stream.stop()


live()
typed()
begin = custom.list_cluster_custom_object(**CLUSTERS)["metadata"]["resourceVersion"]
create_cluster("third")
middle = label("third", "yes")["metadata"]["resourceVersion"]
label("third", "no")
custom.delete_cluster_custom_object(**CLUSTERS, name="third")
clusters("all", resource_version=begin)
clusters("rest", resource_version=middle)
clusters("selected", resource_version=begin, label_selector="kept=yes")
clusters("by name", resource_version=begin, field_selector="metadata.name=second")
end = clusters("bookmarked", resource_version=begin, allow_watch_bookmarks=True)
clusters("none after it", resource_version=end)
told(
    "streamed list",
    core.list_namespace,
    2,
    send_initial_events=True,
    resource_version_match="NotOlderThan",
    allow_watch_bookmarks=True,
)
print("ready", flush=True)
input()
try:
    clusters("too old", 1, resource_version=begin)
except client.ApiException as refusal:
    print("too old", refusal.status, refusal.reason.partition(":")[0])
again = custom.list_cluster_custom_object(**CLUSTERS)
print("listed", [item["metadata"]["name"] for item in again["items"]])
label("second", "yes")
clusters("from there", 1, resource_version=again["metadata"]["resourceVersion"])
