-- KEYS: record.  ARGV: token, lease, wait, waiters allowed, by, proof (or none).
-- Returns {1, record} with the lease, {0, record} without one, or how many are ahead of
-- us; below zero: the queue is full.
--
-- A newcomer gets in line where others wait, also if the lock happens to be free: else a
-- request that comes back at once starves the rest.  No waiter needs to leave the queue
-- in good order: each is in it until an end.

local key, token, by, proof = KEYS[1], ARGV[1], ARGV[5], ARGV[6]
local lease, wait, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = clock()
local found = read(key, 'lease', 'waiters')
local version, meta, holder, waiters = found[1], found[3], found[6], found[7]
local queue = waiters and cjson.decode(waiters) or {}
local mine = queue[token]

local function leave_queue()
    queue[token] = nil
    if next(queue) then
        redis.call('HSET', key, 'waiters', cjson.encode(queue))
    else
        redis.call('HDEL', key, 'waiters')
    end
end

local function admits()
    local known = cjson.decode(meta)
    if (known.proof or '') == proof then return true end
    for _, each in ipairs(known.replaced or {}) do
        local ends = each[2]
        if each[1] == proof and (ends == cjson.null or ends * 1000 > now) then
            return true
        end
    end
    return false
end

if version and proof then
    local is_readable, is_good = pcall(admits)
    if not (is_readable and is_good) then
        if mine then leave_queue() end
        return {0, found}
    end
end
if not version then return {0, found} end

local ahead, waiting = 0, 0
for other, ends in pairs(queue) do
    if ends <= now then
        queue[other] = nil
    elseif other ~= token then
        waiting = waiting + 1
        if not mine or ends <= mine then ahead = ahead + 1 end
    end
end
local is_taken = holder and not holds(holder, token) and is_live(holder, now)
if is_taken or waiting > 0 and not mine then
    if not mine then
        if waiting >= limit then return -1 - waiting end
        queue[token] = now + wait
        redis.call('HSET', key, 'waiters', cjson.encode(queue))
    end
    return ahead
end
redis.call(
    'HSET', key, 'lease', string.format('%s %.0f %.0f %s', token, now, now + lease, by))
if mine then leave_queue() end
return {1, found}
