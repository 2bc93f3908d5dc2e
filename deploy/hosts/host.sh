#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# One host of the quickstart's farm: redis, nginx, a Python web server, light load on them, and the agent. Runs in the
# foreground, as the first process of its own PID namespace where there is one, and takes everything with it when it
# ends. Called by quickstart.sh only.
#
#   host.sh NAME ADDRESS DIR BIN COLLECTOR TOKEN-FILE

set -u
name=$1 address=$2 dir=$3 bin=$4 collector=$5 token_file=$6
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

mkdir -p "$dir/nginx" "$dir/redis" "$dir/log" "$dir/agent"
chmod 755 "$dir" "$dir/log"
[ "$$" -eq 1 ] && hostname "$name" 2>/dev/null

cat > "$dir/nginx/nginx.conf" <<END
daemon off;
worker_processes 2;
pid $dir/nginx/nginx.pid;
error_log $dir/log/nginx-error.log notice;
events { worker_connections 256; }
http {
    access_log $dir/log/nginx-access.log;
    client_body_temp_path $dir/nginx/body;
    proxy_temp_path $dir/nginx/proxy;
    fastcgi_temp_path $dir/nginx/fastcgi;
    uwsgi_temp_path $dir/nginx/uwsgi;
    scgi_temp_path $dir/nginx/scgi;
    keepalive_requests 1000000;
    server { listen $address:8080; location / { return 200 "hello from $name\n"; } }
}
END

children=''
start() {
    "$@" >>"$dir/log/host.log" 2>&1 </dev/null &
    children="$children $!"
}
stop() {
    trap - TERM INT EXIT
    kill $children 2>/dev/null
    wait
    exit 0
}
trap stop TERM INT EXIT

redis-server --port 6379 --bind "$address" --protected-mode no --dir "$dir/redis" --save '' --appendonly no --loglevel verbose \
    >>"$dir/log/redis.log" 2>&1 </dev/null &
children="$children $!"
start nginx -p "$dir/nginx" -c "$dir/nginx/nginx.conf" -e "$dir/log/nginx-error.log"
start /usr/bin/python3 "$here/app.py" "$address" 8000 "$dir/log/app.log"
start /usr/bin/python3 "$here/load.py" "$address" "$dir/load"

# The agent is started by hand from a file, as on any server; it comes back if it is killed.
join=(--join "$(cat "$token_file")")
while :; do
    "$bin/trawl-agent" run --collector "$collector" "${join[@]}" --name "$name" --state-dir "$dir/agent/state" \
        --follow redis-server,nginx,python3 >>"$dir/log/agent.log" 2>&1 </dev/null &
    agent=$!
    children="$children $agent"
    wait "$agent"
    join=()
    sleep 1
done
