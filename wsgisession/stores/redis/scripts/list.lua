-- KEYS: the index of a user.  ARGV: id of a record, until when to list it at least, life.
-- Returns until when it is listed.
--
-- An entry goes by its time or with its record, never because the record does not match
-- now: a login lists first and writes then.  An entry never ends earlier than it did, and
-- the index ends with its last entry.

local key, id, life = KEYS[1], ARGV[1], tonumber(ARGV[3])
local now = clock()
local listed = math.min(math.max(tonumber(ARGV[2]), now + 2 * life), FAR)
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
redis.call('ZADD', key, 'GT', listed, id)
redis.call('PEXPIREAT', key, redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2])
return listed
