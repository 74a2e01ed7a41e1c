-- Sends the requests of a file in turn: each is its length in bytes, a line's end, and its text.
local requests, place = {}, 0

function init(args)
   local file = io.open(args[1], "rb")
   while true do
      local length = file:read("*n")
      if not length then break end
      file:read(1)
      requests[#requests + 1] = file:read(length)
   end
   file:close()
end

function request()
   place = place % #requests + 1
   return requests[place]
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format('RESULT {"requests":%d,"seconds":%f,"p99_us":%f,"errors":%d}\n', summary.requests,
      summary.duration / 1e6, latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
