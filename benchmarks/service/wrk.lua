-- Posts the JSON bodies of a file in turn and ends with one line of JSON: wrk ... -- BODIES [HEADER VALUE]...
local requests = {}
local sent = 0

function init(arguments)
  local headers = { ["content-type"] = "application/json" }
  for at = 2, #arguments, 2 do
    headers[arguments[at]] = arguments[at + 1]
  end
  for body in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("POST", "/predict", headers, body)
  end
end

function request()
  sent = sent + 1
  return requests[sent % #requests + 1]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
