// A person with a real browser (headless Chromium): opens an address, and says yes to everything that the
// issuer's pages ask, until a page shows what is waited for.
//
// node browser.mjs ADDRESS TEXT   prints what that page was, as JSON.

import { chromium } from 'playwright-core';

const PATIENCE_MS = 20000;
const LOOK_AGAIN_MS = 50;
const [address, wanted] = process.argv.slice(2);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE_MS / 4);
  const complaints = [];
  page.on('console', (message) => complaints.push(message.text()));
  // The issuer's pages ask for fonts from elsewhere; there is nothing but this machine.
  await page.route('**', (route) => {
    const here = new URL(route.request().url()).hostname === '127.0.0.1';
    return here ? route.continue() : route.abort();
  });
  let response;
  page.on('response', (one) => {
    if (one.request().isNavigationRequest()) response = one;
  });
  await page.goto(address, { waitUntil: 'domcontentloaded' });
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    // Some pages go on by themselves; what is asked of a page that is just leaving fails, and is asked again.
    const text = await page.innerText('body').catch(() => '');
    if (text.includes(wanted)) break;
    if (Date.now() > deadline) throw new Error(`no '${wanted}' at ${page.url()}: ${text}`);
    await answer(page).catch(() => {});
    await page.waitForTimeout(LOOK_AGAIN_MS);
  }
  const headers = response.headers();
  console.log(JSON.stringify({
    url: page.url(),
    status: response.status(),
    text: await page.innerText('body'),
    policy: headers['content-security-policy'],
    cached: headers['cache-control'],
    complaints,
  }));
} finally {
  await browser.close();
}

async function answer(page) {
  const button = page.locator('button[type=submit]').first();
  if ((await button.count()) === 0) return;
  if ((await page.locator('input[name=login]').count()) > 0) {
    await page.fill('input[name=login]', 'user');
    await page.fill('input[name=password]', 'any');
  }
  await button.click();
  await page.waitForLoadState('domcontentloaded');
}
