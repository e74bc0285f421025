-- What wrk asks (ASKED) and what it prints: one JSON object. Ten thousand tenants in turn.

local TENANTS = 10000
local asked = os.getenv("ASKED")

local bodies = {
  check = '{"tenant":"tenant-%d","items":[{"meter":"api_call","amount":1}]}',
  reserve = '{"tenant":"tenant-%d","ttl_ms":1000,"mode":"fast","items":[{"meter":"api_call","amount":1}]}',
  throttle = '{"key":"tenant-%d","max_burst":1000000000,"count_per_period":1000000000,"period":60}',
}

local requests = {}
local number = 0

function init()
  local headers = { ["Content-Type"] = "application/json" }
  for tenant = 1, TENANTS do
    requests[tenant] = wrk.format("POST", nil, headers, bodies[asked]:format(tenant))
  end
  number = math.random(TENANTS)
end

function request()
  number = number % TENANTS + 1
  return requests[number]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '{"baseline":"%s","requests_per_s":%.0f,"p50_ms":%.3f,"p99_ms":%.3f,"failed":%d}\n',
    os.getenv("NAME") or "",
    summary.requests / (summary.duration / 1e6),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, failed))
end
