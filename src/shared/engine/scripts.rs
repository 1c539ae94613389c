//! The scripts, each of which is an atomic step.

/// Gives out the lease. KEYS: token, lease. ARGV: holder, length, least fence, grace, kept (ms). Returns nothing if
/// the lease is not free. A server that knows nothing of the provider first gives others time to tell it.
pub(super) const TAKE: &str = "
local known = redis.call('HGET', KEYS[1], 'fence')
local held = redis.call('GET', KEYS[2])
if not known then
  redis.call('HSET', KEYS[1], 'fence', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  if not held then redis.call('SET', KEYS[2], '', 'PX', ARGV[4]) end
  return {}
end
if held and held ~= ARGV[1] then return {} end
local fence = string.format('%.0f', math.max(tonumber(known), tonumber(ARGV[3])) + 1)
redis.call('HSET', KEYS[1], 'fence', fence)
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local now = redis.call('HMGET', KEYS[1], 'fence', 'by', 'generation', 'record')
now[5] = 1
return now
";

/// Replaces the record unless there is a newer one. KEYS: token, lease. ARGV: fence, generation, record, holder,
/// length, grace, kept, channel, news. Returns 1 and whether the lease is the writer's, or 0 and the present record.
///
/// A writer whose number is not the highest given out is refused, unless the record is its own: the holder of a
/// higher number has written nothing yet, and its write will be refused for its generation. So the issuer's answer is
/// not lost because another host took the lease and gave it back meanwhile. A server without a record may have lost a
/// lease with it: it gives out none for as long as that lease could have lasted.
pub(super) const WRITE: &str = "
local now = redis.call('HMGET', KEYS[1], 'fence', 'by', 'generation', 'record')
local fence, by = tonumber(now[1] or '0'), tonumber(now[2] or '0')
local mine = tonumber(ARGV[1])
local is_next = not now[3] or tonumber(ARGV[2]) > tonumber(now[3])
local may_write = mine >= fence or (now[3] and mine == by)
local held = redis.call('GET', KEYS[2])
if mine < by or not is_next or not may_write then
  return {0, now[1] or '0', now[2] or '0', now[3] or '0', now[4] or '', held and 1 or 0}
end
redis.call('HSET', KEYS[1], 'by', ARGV[1], 'generation', ARGV[2], 'record', ARGV[3])
if mine > fence or not now[1] then redis.call('HSET', KEYS[1], 'fence', ARGV[1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
local ours = held == ARGV[4]
if ours then
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
elseif not now[3] and (not held or held == '') then
  redis.call('SET', KEYS[2], '', 'PX', ARGV[6])
end
redis.call('PUBLISH', ARGV[8], ARGV[9])
return {1, ours and 1 or 0}
";

/// Renews the lease if it is the holder's. KEYS: lease. ARGV: holder, length.
pub(super) const RENEW: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
";

/// Gives the lease back if it is the holder's. KEYS: lease. ARGV: holder.
pub(super) const RELEASE: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
";

/// Checks that the other scripts would be allowed, by running one that writes. KEYS: probe. ARGV: length.
pub(super) const PROBE: &str = "
redis.call('HSET', KEYS[1], 'probe', '')
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
";
