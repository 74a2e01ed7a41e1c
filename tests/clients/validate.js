// Reads {address: HTML} and prints what is wrong with it as HTML: [[address, line, rule, message]].
const { HtmlValidate } = require("html-validate");

const pages = JSON.parse(require("fs").readFileSync(0, "utf8"));
const validate = new HtmlValidate({
  extends: ["html-validate:standard"],
  rules: {
    // How it is written, not whether it is valid.
    "attr-quotes": "off",
    "doctype-style": "off",
    "no-trailing-whitespace": "off",
    "void-style": "off",
    "long-title": "off",
    "no-inline-style": "error",
  },
});
const found = [];
for (const [address, html] of Object.entries(pages)) {
  for (const file of validate.validateStringSync(html).results) {
    for (const { line, ruleId, message } of file.messages) found.push([address, line, ruleId, message]);
  }
}
console.log(JSON.stringify(found));
