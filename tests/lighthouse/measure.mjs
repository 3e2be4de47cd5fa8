// Measures pages with Lighthouse: `node measure.mjs MODULES ASKED`.
// ASKED is JSON: {chromium, arguments, pages: [{name, url, picture}]}; with a picture, the page measured is the answer to its
// form, sent without the page's own script. Prints one line of JSON for each page and form factor.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, asked] = process.argv.slice(2);
const { chromium, arguments: args, pages } = JSON.parse(asked);
const resolve = createRequire(pathToFileURL(`${modules}/`)).resolve;
const load = (name) => import(pathToFileURL(resolve(name)));
const { startFlow, desktopConfig } = await load("lighthouse");
const { default: puppeteer } = await load("puppeteer-core");

const CATEGORIES = ["accessibility", "best-practices", "performance", "seo"];
const CONFIGS = { desktop: desktopConfig, mobile: undefined };

async function answerOf(page, { url, picture }) {
  await page.goto(url);
  const file = await page.$("input[type=file]");
  await file.uploadFile(picture);
  return () =>
    // Around the submit event: the script would show the answer in a dialog, and nothing would be navigated to.
    file.evaluate((input) => {
      for (const box of input.form.querySelectorAll("input[type=checkbox]")) box.checked = true;
      HTMLFormElement.prototype.submit.call(input.form);
    });
}

async function measure(browser, asked, formFactor) {
  const page = await browser.newPage();
  let answer = "";
  page.on("response", (response) => {
    const request = response.request();
    if (request.isNavigationRequest() && response.frame() === page.mainFrame()) answer = `${request.method()} ${response.status()}`;
  });
  try {
    const flow = await startFlow(page, { config: CONFIGS[formFactor], flags: { onlyCategories: CATEGORIES } });
    await flow.navigate(asked.picture ? await answerOf(page, asked) : asked.url);
    const { lhr } = (await flow.createFlowResult()).steps[0];
    if (answer !== (asked.picture ? "POST 200" : "GET 200")) throw new Error(`${asked.name}: measured the answer to ${answer}`);
    if (lhr.runtimeError) throw new Error(`${asked.name}: ${lhr.runtimeError.message}`);
    return {
      page: asked.name,
      form_factor: formFactor,
      scores: Object.fromEntries(CATEGORIES.map((name) => [name, lhr.categories[name].score])),
      remarks: CATEGORIES.flatMap((name) => lhr.categories[name].auditRefs.flatMap(({ id, weight }) => {
        const audit = lhr.audits[id];
        if (!weight || audit.score === null || audit.score >= 0.9) return [];
        const places = (audit.details?.items ?? []).flatMap((item) => item.node?.selector ?? []);
        return [[name, id, audit.title, ...places].join(" | ")];
      })),
    };
  } finally {
    await page.close();
  }
}

const browser = await puppeteer.launch({ executablePath: chromium, args, headless: true });
try {
  for (const asked of pages) {
    for (const formFactor of Object.keys(CONFIGS)) {
      console.log(JSON.stringify(await measure(browser, asked, formFactor)));
    }
  }
} finally {
  await browser.close();
}
