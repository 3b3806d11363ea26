#!/usr/bin/env bash
# Upload, plan, run, watch and cancel a job with nothing but curl (and jq to read the answers).
# README.md shows these commands; tests/rest_by_curl.rs runs them.
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

step upload
curl -sf -F "jarfile=@$MODULE" "$REST/jars/upload"
JAR=$(curl -sf "$REST/jars" | jq -r '.files[0].id')

step plan
curl -sf -X POST "$REST/jars/$JAR/plan" -d "{\"programArgs\": \"$ARGS\"}" | jq -r '.plan.nodes[].description'

step run
JOB=$(curl -sf -X POST "$REST/jars/$JAR/run" -d "{\"programArgs\": \"$ARGS\", \"parallelism\": 2}" | jq -r .jobid)
echo "$JOB"

step watch
until [ "$(curl -sf "$REST/jobs/$JOB/checkpoints" | jq .counts.completed)" -gt 0 ]; do sleep 0.2; done
curl -sf "$REST/jobs/$JOB" | jq -r '.vertices[] | "\(.name): \(.status), \(.metrics["read-records"]) read, \(.metrics["write-records"]) written"'
curl -sf "$REST/jobs/$JOB/exceptions" | jq -c .exceptionHistory.entries
curl -sf "$REST/jobs/overview" | jq -r '.jobs[] | "\(.jid) \(.name) \(.state)"'

step cancel
curl -sf -X PATCH "$REST/jobs/$JOB?mode=cancel"
until [ "$(curl -sf "$REST/jobs/$JOB/status" | jq -r .status)" = CANCELED ]; do sleep 0.2; done
curl -sf "$REST/jobs/$JOB" | jq -r .state

step delete
curl -sf -X DELETE "$REST/jars/$JAR"
