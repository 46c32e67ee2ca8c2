#!/usr/bin/env bash
# The record of a cluster, on its head node: an MLflow server with accounts, over a PostgreSQL of its own.
#
#   mlflow.sh start     start what does not run, and return once the server answers
#   mlflow.sh stop      stop it; the data stay
#
# Artifacts go to $GAHB_STORAGE/artifacts: s3://bucket/prefix, or a folder. All else is in $GAHB_RECORD (~/gahb-record;
# /var/lib/gahb-record for root), a folder of yours that nobody else may write to: the database, logs, passwords that the
# first start makes up, and `env`, which a shell sources to reach the record. The server listens on $GAHB_RECORD_HOST (the
# node's first address) alone, at $GAHB_RECORD_PORT (5000), and in plain http; the database on a socket that only its owner
# can open. What dies is started again.
set -euo pipefail
umask 077

home=$HOME
[ "$(id -u)" != 0 ] || home=/var/lib
folder=${GAHB_RECORD:-$home/gahb-record}
folder=${folder%/}
host=${GAHB_RECORD_HOST:-$(hostname -I | cut -d' ' -f1)}
port=${GAHB_RECORD_PORT:-5000}
uri=http://$host:$port

for bin in /usr/lib/postgresql/*/bin; do PATH=$PATH:$bin; done

database() { # the URI of one
  echo "postgresql+psycopg2://gahb@/$1?host=$folder/socket"
}

own() { # nothing in the folder is a link, another user's, or open to others; the database's folders are its owner's
  local found me owner
  me=$(id -u) owner=$(id -u)
  [ "$me" != 0 ] || owner=postgres
  found=$(find "$folder" -maxdepth 1 \( -type l -o -perm /022 -o ! -user "$me" \) \
    ! \( -type d ! -perm /022 -user "$owner" \( -name postgres -o -name socket \) \)) && [ -z "$found" ]
}

owner() { # run a command as the database's owner, which may not be root
  if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --init-groups "$@"; else "$@"; fi
}

keep() { # run a command again whenever it ends
  while true; do
    "$@" 9>&- || true
    echo "$(date -Is) $1 ended; once more in 5 s"
    sleep 5
  done
}

run_postgres() {
  # no address: a socket, in a folder that nobody else may enter, is all there is
  owner postgres -D "$folder/postgres" -c listen_addresses= -c unix_socket_directories="$folder/socket"
}

run_mlflow() {
  until pg_isready --quiet --host "$folder/socket"; do sleep 0.5; done
  for name in mlflow accounts; do
    createdb --host "$folder/socket" --username gahb "$name" 2> /dev/null || true # there already
  done
  # a queue of jobs that nothing here needs would take 2.5 GB
  MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    MLFLOW_AUTH_CONFIG_PATH="$folder/auth.ini" \
    MLFLOW_AUTH_ADMIN_PASSWORD="$(< "$folder/admin-password")" \
    MLFLOW_FLASK_SERVER_SECRET_KEY="$(< "$folder/secret-key")" \
    python -m mlflow server --app-name basic-auth --host "$host" --port "$port" --workers 2 \
    --allowed-hosts "$host:$port,$(hostname):$port,localhost:$port,127.0.0.1:$port" \
    --backend-store-uri "$(database mlflow)" --artifacts-destination "${GAHB_STORAGE:?}/artifacts"
}

login() { # a line of curl's configuration, for passwords do not belong among a process's arguments
  printf 'user = "%s:%s"\n' "$1" "$(< "$folder/$1-password")"
}

request() { # a request whose further configuration comes from stdin
  curl --silent --fail --output /dev/null --config - --header 'Content-Type: application/json' "$uri$1"
}

create_account() { # the one that trials use
  {
    login admin
    printf 'data = "{\\"username\\": \\"gahb\\", \\"password\\": \\"%s\\"}"\n' "$(< "$folder/gahb-password")"
  } | request /api/2.0/mlflow/users/create
}

make_up() { # a secret, once
  [ -s "$folder/$1" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$folder/$1"
}

start() {
  mkdir -p "$folder"
  own || {
    echo "$folder, or something in it, is a link, another user's, or open to others; see what it is," \
      "or name another by GAHB_RECORD" >&2
    exit 2
  }
  chmod 711 "$folder" # the database's owner passes through
  for name in admin-password gahb-password secret-key; do make_up "$name"; done
  cat > "$folder/auth.ini" << END
[mlflow]
default_permission = EDIT
database_uri = $(database accounts)
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
END
  if [ ! -s "$folder/postgres/PG_VERSION" ]; then
    for name in postgres socket; do
      mkdir -p "$folder/$name"
      [ "$(id -u)" != 0 ] || chown postgres: "$folder/$name"
    done
    owner initdb --pgdata "$folder/postgres" --username gahb --auth trust --encoding UTF8 > "$folder/initdb.log"
  fi
  setsid nohup "$0" keep >> "$folder/log" 2>&1 < /dev/null &
  for _ in $(seq 240); do
    ! curl --silent --fail --output /dev/null "$uri/health" || break
    sleep 0.5
  done
  login gahb | request '/api/2.0/mlflow/experiments/search?max_results=1' || create_account ||
    { echo "the record does not start; see $folder/log" >&2; exit 1; }
  cat > "$folder/env" << END
export MLFLOW_TRACKING_URI=$uri MLFLOW_TRACKING_USERNAME=gahb MLFLOW_TRACKING_PASSWORD=$(< "$folder/gahb-password")
END
  echo "the record is at $uri"
}

case ${1:-} in
  start) start ;;
  stop)
    if [ -e "$folder/pid" ]; then
      group=$(< "$folder/pid")
      kill -- "-$group"
      for _ in $(seq 120); do # until the servers have ended, too: one that is about to would answer the next start
        pgrep --pgroup "$group" --runstates R,S,D > /dev/null || break
        sleep 0.5
      done
    fi
    ;;
  keep) # the process that `start` leaves behind; the lock makes it the only one
    exec 9> "$folder/lock"
    flock --nonblock 9 || exit 0
    echo $$ > "$folder/pid"
    trap 'rm -f "$folder/pid"' EXIT
    keep run_postgres &
    keep run_mlflow &
    wait
    ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
esac
