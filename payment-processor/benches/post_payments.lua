-- Posts payments to a payment processor as fast as it takes them, each with an id of its own.
--
-- How to run it: the processor on one core, wrk on another, for at most ten seconds.
--
--   cargo build --release -p payment-processor
--   taskset -c 0 target/release/payment-processor --listen 127.0.0.1:8001 &
--   taskset -c 1 wrk -t1 -c64 -d10s -s payment-processor/benches/post_payments.lua http://127.0.0.1:8001
--
-- What it measures: wrk's `Requests/sec` is bounded by wrk itself, which builds every request in
-- Lua. The processor's own cost is its processor time, which the kernel keeps in fields 14 (user)
-- and 15 (system) of /proc/PID/stat in hundredths of a second, before and after, divided by the
-- number of requests.
--
-- Run it against empty books, or with another first argument after `--`, which begins the ids:
-- two runs with the same one post the same ids, and the second is refused (422).

local first_group = 0
local posted_count = 0
local requested_at

function init(arguments)
  first_group = tonumber(arguments[1]) or os.time()
  math.randomseed(first_group)
  requested_at = os.date("!%Y-%m-%dT%H:%M:%S")
end

function request()
  posted_count = posted_count + 1
  -- A random first group, as real ids have one, and a counter that makes them unique.
  local id = string.format("%08x-%04x-4000-8000-%012x",
    math.random(0, 0x7fffffff), first_group % 0x10000, posted_count)
  local millisecond = math.floor(posted_count / 64) % 1000
  local body = string.format('{"correlationId":"%s","amount":19.90,"requestedAt":"%s.%03dZ"}',
    id, requested_at, millisecond)
  return wrk.format("POST", "/payments", { ["Content-Type"] = "application/json" }, body)
end

function done(summary)
  local errors = summary.errors
  io.write(string.format("payments posted: %d, not answered with 2xx: %d\n",
    summary.requests, errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
