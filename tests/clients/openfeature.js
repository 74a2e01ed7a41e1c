// The unmodified server SDK with its OFREP provider: the details of every question, many at a time.
const { OpenFeature } = require("@openfeature/server-sdk");
const { OFREPProvider } = require("@openfeature/ofrep-provider");

const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const KINDS = { string: "String", number: "Number", boolean: "Boolean", object: "Object" };

async function main() {
  const headers = { Authorization: `Bearer ${given.key}` };
  await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl: given.url, headers }));
  const client = OpenFeature.getClient();
  const answers = new Array(given.questions.length);
  let next = 0;
  const ask = async () => {
    while (next < given.questions.length) {
      const at = next++;
      const [flag, fallback, context] = given.questions[at];
      answers[at] = await client[`get${KINDS[typeof fallback]}Details`](flag, fallback, context ?? undefined);
    }
  };
  await Promise.all(Array.from({ length: 16 }, ask));
  await OpenFeature.close();
  process.stdout.write(JSON.stringify(answers));
}

main();
