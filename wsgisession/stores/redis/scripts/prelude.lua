-- Stands before every script.  A script is one step over one key, and knows its own
-- repetition, because a reply can be lost after the server did the work.
-- Moments are milliseconds on the server's clock; "accessed", "expires" and what "meta"
-- holds are epoch seconds on the clock of the host that wrote them.

local FAR = 253402300800000 -- the year 10000: a server refuses ends much later

local function clock()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- What a client is told of a record, in the order of store.FIELDS, and what it is not.
local function read(key, ...)
    return redis.call(
        'HMGET', key, 'version', 'data', 'meta', 'accessed', 'expires', ...)
end

-- When a record ends: never before its "expires", and never before the life that its
-- writer left it has passed here.  So a host whose clock is behind deletes nothing.
local function ending(now, expires, life)
    return math.min(math.max(math.floor(tonumber(expires) * 1000), now + life), FAR)
end

-- A lease is "token since until by", where "by" is for messages.  The token has 16
-- characters, each moment 13.
local function holds(lease, token)
    return lease and lease:sub(1, 16) == token
end

local function is_live(lease, now)
    return tonumber(lease:sub(32, 44)) > now
end
