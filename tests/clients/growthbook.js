// The unmodified JavaScript SDK: its variant and value of every feature for every user, and its answer to conditions.
const { GrowthBook, evalCondition } = require("@growthbook/growthbook");

console.error = () => {}; // it reports each operator it does not know
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const answer = {};
if (given.conditions) {
  answer.conditions = given.conditions.map(([attributes, condition, groups]) =>
    evalCondition(attributes, condition, groups));
}
if (given.payload) {
  const growthbook = new GrowthBook().initSync({ payload: given.payload });
  const keys = Object.keys(given.payload.features);
  answer.users = given.users.map((attributes) => {
    growthbook.setAttributes(attributes);
    return keys.map((key) => {
      const result = growthbook.evalFeature(key);
      return [result.source === "experiment" ? result.experimentResult.key : null, result.value];
    });
  });
  growthbook.destroy();
}
process.stdout.write(JSON.stringify(answer));
