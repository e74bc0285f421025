"""Sends usage to the ingress topic from Python, in each content mode of CloudEvents.

    pip install -r requirements.txt
    python3 send.py --brokers 127.0.0.1:9092 --topic odometer.ingress --count 3
"""

import argparse
import json
import sys
import uuid
from datetime import datetime, timezone

from confluent_kafka import Producer

TENANT = "acme"


def usage(number):
    """One fact. Its id and time stay with it however often it is sent."""
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/examples/python",
        "type": "odometer.llm",
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "tenant": TENANT,
        "data": {"prompt_tokens": 100 + number, "generated_tokens": 10, "model": "m-1"},
    }


def structured(event):
    """The whole event is the message."""
    return {"content-type": "application/cloudevents+json"}, json.dumps(event)


def binary(event):
    """The data is the message, the attributes are headers."""
    attributes = {f"ce_{key}": value for key, value in event.items() if key != "data"}
    return {"content-type": "application/json", **attributes}, json.dumps(event["data"])


def batch(events):
    """Several events are one message."""
    return {"content-type": "application/cloudevents-batch+json"}, json.dumps(events)


def messages(count):
    """Headers and value of each message: COUNT events in each mode."""
    yield from (structured(usage(number)) for number in range(count))
    yield from (binary(usage(number)) for number in range(count))
    yield batch([usage(number) for number in range(count)])


def main():
    """Sends, and waits until the broker has confirmed everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--brokers", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="odometer.ingress")
    parser.add_argument("--count", type=int, default=3, help="events in each content mode")
    options = parser.parse_args()

    failures = []
    confirmed = []

    def on_delivery(error, message):
        (failures if error else confirmed).append(error or message)

    producer = Producer(
        {"bootstrap.servers": options.brokers, "acks": "all", "enable.idempotence": True}
    )
    for headers, value in messages(options.count):
        producer.produce(
            options.topic, value, key=TENANT, headers=headers, on_delivery=on_delivery
        )
    left = producer.flush(30)
    if failures or left:
        sys.exit(f"error: {len(failures)} refused, {left} without an answer: {failures[:1]}")
    print(f"sent {3 * options.count} events in {len(confirmed)} messages to {options.topic}")


if __name__ == "__main__":
    main()
