#!/usr/bin/env bash
# Upload, plan, run, watch and cancel a job with nothing but curl (and Python to read the answers).
# README.md shows these commands (with jq); tests/rest_by_curl.rs runs them.
#
# Settings, by environment: REST, MODULE, KAFKA, INPUT, OUTPUT (topics that exist).
set -euo pipefail

REST=${REST:-http://localhost:8081}
MODULE=${MODULE:-target/jobs/click-event-count.wasm}
KAFKA=${KAFKA:-localhost:9092}
INPUT=${INPUT:-input}
OUTPUT=${OUTPUT:-output}
ARGS="--bootstrap.servers $KAFKA --input-topic $INPUT --output-topic $OUTPUT --checkpointing --event-time"

step() { printf '\n# %s\n' "$*"; }

# Reads JSON and prints the value at a path of keys and positions.
pick() {
  python3 -c '
import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1:]:
    value = value[int(key)] if isinstance(value, list) else value[key]
print(value if isinstance(value, str) else json.dumps(value))' "$@"
}

step upload
curl -sf -F "jarfile=@$MODULE" "$REST/jars/upload"
JAR=$(curl -sf "$REST/jars" | pick files 0 id)

step plan
curl -sf -X POST "$REST/jars/$JAR/plan" -d "{\"programArgs\": \"$ARGS\"}" | pick plan nodes

step run
JOB=$(curl -sf -X POST "$REST/jars/$JAR/run" -d "{\"programArgs\": \"$ARGS\", \"parallelism\": 2}" | pick jobid)
echo "$JOB"

step watch
until [ "$(curl -sf "$REST/jobs/$JOB/checkpoints" | pick counts completed)" -gt 0 ]; do sleep 0.2; done
curl -sf "$REST/jobs/$JOB" | pick vertices
curl -sf "$REST/jobs/$JOB/exceptions" | pick exceptionHistory entries
curl -sf "$REST/jobs/overview" | pick jobs

step cancel
curl -sf -X PATCH "$REST/jobs/$JOB?mode=cancel"
until [ "$(curl -sf "$REST/jobs/$JOB/status" | pick status)" = CANCELED ]; do sleep 0.2; done
curl -sf "$REST/jobs/$JOB" | pick state

step delete
curl -sf -X DELETE "$REST/jars/$JAR"
