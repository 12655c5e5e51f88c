# Provides the servers that the contract suite and the chaos run need. `run`, `versions` and
# `chaos/run` source this.
#
# If Docker runs and has or can pull the images, there is nothing to do. On Debian or Ubuntu, as root,
# this installs and starts Docker, and builds images from packages. When the script that sourced this
# ends, its containers are removed, and Docker is stopped if it was started here.
# shellcheck shell=bash

export SYNCGUARD_TEST_RUN=$$
engine=
engine_log=
image=
unreachable=

say() { echo "$0: $*" >&2; }

finish() {
  local left
  if left=$(docker ps -aq --filter "label=syncguard.test-run=$SYNCGUARD_TEST_RUN" 2>/dev/null) && [ -n "$left" ]; then
    # shellcheck disable=SC2086 # one argument per container
    docker rm -fv $left >/dev/null || true
  fi
  [ -z "$engine" ] || { kill "$engine" && wait "$engine"; } 2>/dev/null || true
  rm -f "$engine_log"
}
trap finish EXIT
trap 'exit 130' INT TERM

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

start_engine() {
  docker info >/dev/null 2>&1 && return
  if ! { command -v docker && command -v dockerd; } >/dev/null && can_install; then
    say "installing Docker"
    contract-tests/stand-in-images install docker.io iptables
    # Newer releases package the client separately.
    command -v docker >/dev/null || contract-tests/stand-in-images install docker-cli
    docker info >/dev/null 2>&1 && return
  fi
  [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null || return
  say "starting Docker"
  engine_log=$(mktemp)
  # Docker gets its own process group, so Ctrl-C does not end it before its containers are removed.
  setsid dockerd >"$engine_log" 2>&1 &
  engine=$!
  for _ in {1..150}; do
    docker info >/dev/null 2>&1 && return
    kill -0 "$engine" 2>/dev/null || break
    sleep 0.2
  done
  tail -n 5 "$engine_log" >&2
  return 1
}

# Sets $image to the name of a local image: the official one, pulled if it is missing, or a stand-in.
find_image() {
  local official=$1 stand_in=$2
  image=$official
  docker image inspect "$image" >/dev/null 2>&1 && return
  if [ -z "$unreachable" ]; then
    # A manifest arrives within seconds if the registry can be reached. A pull may take minutes.
    timeout 10 docker manifest inspect "$image" >/dev/null 2>&1 && docker pull -q "$image" && return
    unreachable=yes
    say "no image registry answers: stand-ins are used"
  fi
  image=$(contract-tests/stand-in-images "$stand_in")
}

declare -A OFFICIAL=(
  [redis]=redis:7.0
  [postgres]=postgres:15
  [firestore]=google/cloud-sdk:emulators
)

# Sets the environment variable through which tests find a server of this kind, if they need one.
provide() {
  local server=$1 variable=SYNCGUARD_${1^^}
  local given_url=${variable}_URL given_image=${variable}_IMAGE
  [ -z "${!given_url:-}${!given_image:-}" ] || return 0
  if ! find_image "${OFFICIAL[$server]}" "$server"; then
    say "no image of $server: its tests will fail"
  elif [ "$image" != "${OFFICIAL[$server]}" ]; then
    export "$given_image=$image"
  fi
}

# Installs the programs that some tests start.
install_programs() {
  local program
  for program in pgbouncer openssl; do
    if ! command -v "$program" >/dev/null && can_install; then
      say "installing $program"
      contract-tests/stand-in-images install "$program" || say "$program could not be installed: its tests will fail"
    fi
  done
}

command -v cargo >/dev/null || { say "cargo is not installed: https://rustup.rs"; exit 1; }
