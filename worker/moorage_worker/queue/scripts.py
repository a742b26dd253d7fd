"""Each change of a job's record as one script, because a result and its status must never be seen apart.

Scripts also settle who comes first: a result, a cancellation and a second worker may meet at one record.
Redis' own clock tells the times, so that workers need not agree on one.
"""

from __future__ import annotations

_CLOCK = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
"""
_FINAL = """
local function final(status)
  return status and status ~= 'IN_QUEUE' and status ~= 'IN_PROGRESS'
end
"""

# KEYS job; ARGV digest, seconds to keep -> status, digest, sent. A record that is there stays as it is.
ACCEPT = (
    _CLOCK
    + """
local found = redis.call('HMGET', KEYS[1], 'status', 'digest', 'sent')
if found[1] then
  return {found[1], found[2] or '', found[3] or '0'}
end
redis.call('HSET', KEYS[1], 'status', 'IN_QUEUE', 'digest', ARGV[1], 'queued_at', now)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return {'NEW', ARGV[1], '0'}
"""
)

# KEYS job. The broker has confirmed the message.
SENT = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'sent', '1')
end
"""

# KEYS job. The message could not be sent: as if it had never been accepted, unless a worker has it after all.
FORGET = """
local found = redis.call('HMGET', KEYS[1], 'status', 'starts')
if found[1] == 'IN_QUEUE' and not found[2] then
  redis.call('DEL', KEYS[1])
end
"""

# KEYS job, totals; ARGV run, worker, starts allowed, queued_at, seconds to keep
# -> status or 'EXHAUSTED', starts. Repeated for the same run, it changes nothing.
BEGIN = (
    _CLOCK
    + _FINAL
    + """
local found = redis.call('HMGET', KEYS[1], 'status', 'run', 'starts')
if final(found[1]) then
  return {found[1], 0}
end
local starts = tonumber(found[3] or 0)
if found[2] == ARGV[1] then
  return {'IN_PROGRESS', starts}
end
if starts >= tonumber(ARGV[3]) then
  return {'EXHAUSTED', starts}
end
starts = starts + 1
redis.call('HSET', KEYS[1], 'status', 'IN_PROGRESS', 'run', ARGV[1], 'worker', ARGV[2], 'started_at', now,
  'starts', starts)
redis.call('HSETNX', KEYS[1], 'queued_at', ARGV[4])
redis.call('HDEL', KEYS[1], 'progress')
redis.call('EXPIRE', KEYS[1], ARGV[5])
if starts > 1 then
  redis.call('HINCRBY', KEYS[2], 'retried', 1)
end
return {'IN_PROGRESS', starts}
"""
)

# KEYS job; ARGV run, JSON.
PROGRESS = """
local found = redis.call('HMGET', KEYS[1], 'status', 'run')
if found[1] == 'IN_PROGRESS' and found[2] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'progress', ARGV[2])
end
"""

# KEYS job, totals; ARGV status, 'output' or 'error', its JSON, queued_at, seconds to keep, channel, id
# -> 1, or 0 where the job was over already. The first result stays.
FINISH = (
    _CLOCK
    + _FINAL
    + """
if final(redis.call('HGET', KEYS[1], 'status')) then
  return 0
end
redis.call('HSET', KEYS[1], 'status', ARGV[1], ARGV[2], ARGV[3], 'finished_at', now)
redis.call('HSETNX', KEYS[1], 'queued_at', ARGV[4])
redis.call('HDEL', KEYS[1], 'run', 'progress')
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
redis.call('PUBLISH', ARGV[6], ARGV[7])
return 1
"""
)

# KEYS job; ARGV run. The run was broken off by a worker that had to go, which is no fault of the job.
GIVE_BACK = """
local found = redis.call('HMGET', KEYS[1], 'status', 'run')
if found[1] == 'IN_PROGRESS' and found[2] == ARGV[1] then
  redis.call('HINCRBY', KEYS[1], 'starts', -1)
  redis.call('HSET', KEYS[1], 'status', 'IN_QUEUE')
  redis.call('HDEL', KEYS[1], 'run', 'worker', 'started_at', 'progress')
end
"""

# KEYS job, totals; ARGV seconds to keep, channel of cancellations, channel of ends, id
# -> the status after it, or '' where there is no such job.
CANCEL = (
    _CLOCK
    + _FINAL
    + """
local status = redis.call('HGET', KEYS[1], 'status')
if not status or final(status) then
  return status or ''
end
redis.call('HSET', KEYS[1], 'status', 'CANCELLED', 'finished_at', now)
redis.call('HDEL', KEYS[1], 'run', 'progress')
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('HINCRBY', KEYS[2], 'CANCELLED', 1)
redis.call('PUBLISH', ARGV[2], ARGV[4])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 'CANCELLED'
"""
)

# KEYS workers; ARGV worker, ready, jobs in hand, seconds to keep.
SAY = (
    _CLOCK
    + """
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d %s %s', now, ARGV[2], ARGV[3]))
redis.call('EXPIRE', KEYS[1], ARGV[4])
"""
)
