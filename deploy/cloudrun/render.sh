#!/bin/sh
# Fills in service.yaml, for `gcloud run services replace`. Out of the environment: PROJECT_ID, REGION, IMAGE,
# SERVICE_ACCOUNT, PUBLIC_URL and INSTALLATION; SERVICE is `moorage` unless it says otherwise, and MODE one of
#   always   (default) an instance is always there and always has CPU: the engine turns by itself
#   ticked   instances have CPU only while they answer: Cloud Scheduler calls POST /internal/tick each minute
set -eu

SERVICE="${SERVICE:-moorage}"
case "${MODE:-always}" in
  always) MIN_INSTANCES=1 CPU_THROTTLING=false TICK_ONLY=false ;;
  ticked) MIN_INSTANCES=0 CPU_THROTTLING=true TICK_ONLY=true ;;
  *) echo "MODE must be always or ticked; it is ${MODE}" >&2; exit 2 ;;
esac

script=""
for name in SERVICE PROJECT_ID REGION IMAGE SERVICE_ACCOUNT PUBLIC_URL INSTALLATION \
  MIN_INSTANCES CPU_THROTTLING TICK_ONLY; do
  eval "value=\${$name:?must be set}"
  case "$value" in
    *[!A-Za-z0-9:/@._-]*) echo "$name has a character that no name or address here has" >&2; exit 2 ;;
  esac
  script="${script}s|\${$name}|$value|g;"
done
# The header speaks of the placeholders, and is not for the platform.
sed -e '/^#/d' -e "$script" "$(dirname "$0")/service.yaml"
