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

/// Deletes a value if it is one of these. KEYS: the value. ARGV: those that go.
pub(super) const FORGET: &str = "
local known = redis.call('GET', KEYS[1])
for at = 1, #ARGV do
  if known == ARGV[at] then return redis.call('DEL', KEYS[1]) end
end
return 0
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

/// Counts requests of the last 60 seconds, in one field for each second. KEYS: requests. ARGV: second, most, wanted.
/// Returns how many of the wanted ones are counted, and the seconds until there is room for another one. The clocks of
/// hosts may differ by a moment, so a second ahead counts too.
pub(super) const COUNT_REQUESTS: &str = "
local now, most, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local fields = {}
for slot = 0, 59 do fields[slot + 1] = slot end
local kept = redis.call('HMGET', KEYS[1], unpack(fields))
local used, counts = 0, {}
for slot = 0, 59 do
  local second, count = string.match(kept[slot + 1] or '', '^(%d+) (%d+)$')
  local age = second and now - tonumber(second)
  if age and age < 60 and age > -60 then
    counts[age] = (counts[age] or 0) + tonumber(count)
    used = used + tonumber(count)
  end
end
local granted = math.min(wanted, math.max(0, most - used))
if granted > 0 then
  local count = string.format('%.0f', (counts[0] or 0) + granted)
  redis.call('HSET', KEYS[1], now % 60, ARGV[1] .. ' ' .. count)
  redis.call('PEXPIRE', KEYS[1], 120000)
  counts[0] = (counts[0] or 0) + granted
end
local left, wait = used + granted, 0
for age = 59, -59, -1 do
  if left < most then break end
  left = left - (counts[age] or 0)
  wait = 60 - age
end
return {granted, wait}
";

/// Takes one request back. KEYS: requests. ARGV: second.
pub(super) const GIVE_REQUEST_BACK: &str = "
local slot = tonumber(ARGV[1]) % 60
local second, count = string.match(redis.call('HGET', KEYS[1], slot) or '', '^(%d+) (%d+)$')
if second ~= ARGV[1] or tonumber(count) < 1 then return 0 end
redis.call('HSET', KEYS[1], slot, second .. ' ' .. string.format('%.0f', tonumber(count) - 1))
return 1
";

/// Replaces the host's own text unless the known version is as high, and reads all. KEYS: tally. ARGV: host, version,
/// text, kept (ms), the sum of versions that the caller knows. Returns the sum of all versions, and
/// each host with its text if the sum is another one.
///
/// A version grows with what is counted, so a write that is repeated after a lost connection changes nothing, and a
/// server that has lost its data gets the text again. A host called `<name>-<number>-sum` takes the place of those with
/// this name and at most this number.
pub(super) const EXCHANGE: &str = "
local hosts = redis.call('HGET', KEYS[1], 'hosts') or ''
local sum = redis.call('HGET', KEYS[1], 'sum') or '0'
local known = tonumber(redis.call('HGET', KEYS[1], 'version:' .. ARGV[1]) or '0')
local function in_sum(host, of)
  local name, number = string.match(of, '^(.*)%-(%d+)%-sum$')
  local own, at = string.match(host, '^(.*)%-(%d+)%-[^-]*$')
  return name ~= nil and own == name and host ~= of and tonumber(at) <= tonumber(number)
end
local is_news = tonumber(ARGV[2]) > known
for host in string.gmatch(is_news and hosts or '', '%S+') do
  is_news = is_news and not in_sum(ARGV[1], host)
end
if is_news then
  local left, gone = '', known
  for host in string.gmatch(hosts, '%S+') do
    if in_sum(host, ARGV[1]) then
      gone = gone + tonumber(redis.call('HGET', KEYS[1], 'version:' .. host) or '0')
      redis.call('HDEL', KEYS[1], 'version:' .. host, 'text:' .. host)
    else
      left = left .. ' ' .. host
    end
  end
  hosts = left
  if known == 0 then hosts = hosts .. ' ' .. ARGV[1] end
  sum = string.format('%.0f', tonumber(sum) - gone + tonumber(ARGV[2]))
  redis.call('HSET', KEYS[1], 'version:' .. ARGV[1], ARGV[2], 'text:' .. ARGV[1], ARGV[3])
  redis.call('HSET', KEYS[1], 'hosts', hosts, 'sum', sum)
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
if sum == ARGV[5] then return {sum} end
local texts = {}
for host in string.gmatch(hosts, '%S+') do
  table.insert(texts, host)
  table.insert(texts, redis.call('HGET', KEYS[1], 'text:' .. host) or '')
end
return {sum, texts}
";
