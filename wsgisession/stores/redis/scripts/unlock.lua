-- KEYS: record.  ARGV: lease.

if holds(redis.call('HGET', KEYS[1], 'lease'), ARGV[1]) then
    redis.call('HDEL', KEYS[1], 'lease')
end
return 1
