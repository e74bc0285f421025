#!/usr/bin/env bash
# Sends usage to the ingress topic with kcat, in each content mode of CloudEvents.
#
#   examples/ingress/kcat.sh BROKERS TOPIC [COUNT]
#
# The shortest form, one structured event, is one line:
#
#   echo '{"specversion":"1.0","id":"run-7","source":"/shell","type":"odometer.llm","tenant":"acme","data":{"prompt_tokens":4808}}' |
#     kcat -P -b 127.0.0.1:9092 -t odometer.ingress -X acks=all -H content-type=application/cloudevents+json
set -euo pipefail

brokers=${1:?usage: kcat.sh BROKERS TOPIC [COUNT]}
topic=${2:?usage: kcat.sh BROKERS TOPIC [COUNT]}
count=${3:-3}
# A fact keeps its id and time when it is sent again; these facts are new in each run.
run="kcat-$(date +%s)-$$"
now=$(date --utc +%Y-%m-%dT%H:%M:%SZ)

send() { # header…, with the message on standard input
  local headers=()
  for header in "$@"; do headers+=(-H "$header"); done
  kcat -P -b "$brokers" -t "$topic" -k acme -X acks=all -X enable.idempotence=true "${headers[@]}"
}

data() { printf '{"prompt_tokens":%d,"generated_tokens":10,"model":"m-1"}' $((100 + $1)); }

event() { # mode, number
  printf '{"specversion":"1.0","id":"%s-%s-%d","source":"/examples/kcat","type":"odometer.llm","time":"%s","tenant":"acme","data":%s}' \
    "$run" "$1" "$2" "$now" "$(data "$2")"
}

batch='['
for ((n = 0; n < count; n++)); do
  event structured "$n" | send content-type=application/cloudevents+json
  data "$n" | send content-type=application/json ce_specversion=1.0 "ce_id=$run-binary-$n" \
    ce_source=/examples/kcat ce_type=odometer.llm "ce_time=$now" ce_tenant=acme
  [ "$n" -eq 0 ] || batch+=','
  batch+=$(event batch "$n")
done
printf '%s]' "$batch" | send content-type=application/cloudevents-batch+json

echo "sent $((3 * count)) events in $((2 * count + 1)) messages to $topic"
