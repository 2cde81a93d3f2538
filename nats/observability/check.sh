#!/usr/bin/env bash
# Whether Prometheus understands rules and dashboards, and whether each alert fires where it
# should and nowhere else. Exit code 3: there is no promtool.
set -euo pipefail
cd "$(dirname "$0")"

promtool="${PROMTOOL:-$(command -v promtool || true)}"
[ -n "$promtool" ] || { [ ! -x /usr/bin/promtool ] || promtool=/usr/bin/promtool; }
if [ -z "$promtool" ]; then
  echo "promtool is missing: install Prometheus (Debian, Ubuntu: apt-get install --no-install-recommends prometheus) or name it in PROMTOOL, then try again" >&2
  exit 3
fi

"$promtool" check rules rules.yaml
"$promtool" check config --syntax-only prometheus.yaml
"$promtool" test rules rules.test.yaml dashboards.test.yaml
