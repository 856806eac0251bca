-- KEYS: record.  ARGV: expected version, version, lease, user ('' or 32 digits), until
-- when the user's index lists the record ('' if we do not know), life, data, meta,
-- accessed, expires.
-- Returns 1: saved; 2: nothing done, the user's index has to list the record first; else
-- the record that stood in the way.

local key, expect, version, token, user = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local listed, life, expires = ARGV[5], tonumber(ARGV[6]), ARGV[10]
local current, lease, entry =
    unpack(redis.call('HMGET', key, 'version', 'lease', 'listed'))
if current == version then return 1 end

local now = clock()
local is_ours = holds(lease, token)
if (current or '0') ~= expect or lease and not is_ours and is_live(lease, now) then
    if is_ours then redis.call('HDEL', key, 'lease') end
    return read(key)
end

local ends = ending(now, expires, life)
local fields = {
    'version', version, 'data', ARGV[7], 'meta', ARGV[8],
    'accessed', ARGV[9], 'expires', expires
}
if user ~= '' then
    if listed == '' then -- else it was listed for this very save
        if not (entry and entry:sub(1, 32) == user) then return 2 end
        listed = entry:sub(34)
        if tonumber(listed) < ends then return 2 end
    end
    fields[11], fields[12] = 'listed', user .. ' ' .. listed
end
-- The first write is the one that a full server refuses; it would let later ones pass.
redis.call('HSET', key, unpack(fields))
if lease then redis.call('HDEL', key, 'lease') end
if entry and user == '' then redis.call('HDEL', key, 'listed') end
redis.call('PEXPIREAT', key, ends)
return 1
