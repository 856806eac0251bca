-- KEYS: record.  ARGV: version, lease, until when the user's index lists the record (''
-- if we do not know), life, accessed, expires.
-- Returns 1: done; 0: no such record; 2: nothing done, the user's index has to list the
-- record for longer first.

local key, version, token = KEYS[1], ARGV[1], ARGV[2]
local listed, life = ARGV[3], tonumber(ARGV[4])
local current, accessed, expires, lease, entry =
    unpack(redis.call('HMGET', key, 'version', 'accessed', 'expires', 'lease', 'listed'))

local function later(one, other)
    return tonumber(one) > tonumber(other) and one or other
end

local is_there = current == version
if is_there then
    accessed, expires = later(ARGV[5], accessed), later(ARGV[6], expires)
    local ends = ending(clock(), expires, life)
    local fields = {'accessed', accessed, 'expires', expires}
    if entry then
        if listed ~= '' then -- it was listed for this very touch
            entry = entry:sub(1, 33) .. listed
        elseif tonumber(entry:sub(34)) < ends then
            return 2
        end
        fields[5], fields[6] = 'listed', entry
    end
    redis.call('HSET', key, unpack(fields))
    redis.call('PEXPIREAT', key, ends)
end
if holds(lease, token) then redis.call('HDEL', key, 'lease') end
return is_there and 1 or 0
