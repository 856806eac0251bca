-- KEYS: record.  ARGV: the only user whose record may go (or none).
-- Returns 0: nothing done; 1: deleted, it had no user; else deleted, and its user.

local function user_of(meta)
    return cjson.decode(meta).user
end

local is_readable, user = pcall(user_of, redis.call('HGET', KEYS[1], 'meta'))
if not is_readable then user = nil end
if ARGV[1] and ARGV[1] ~= user then return 0 end
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
return user or 1
