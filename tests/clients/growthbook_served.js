// The unmodified JavaScript SDK with a server: what it gives each user, what it tracks, and a change that is streamed.
const { GrowthBook, setPolyfills } = require("@growthbook/growthbook");
const { EventSource } = require("eventsource");
const { Analytics } = require("@segment/analytics-node");

setPolyfills({ EventSource });
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const tell = (value) => new Promise((done) => process.stdout.write(JSON.stringify(value) + "\n", done));

async function main() {
  const analytics = new Analytics({ writeKey: given.writeKey, host: given.url, path: "/v1/batch" });
  const growthbook = new GrowthBook({
    apiHost: given.url,
    clientKey: given.key,
    trackingCallback: (experiment, result) => given.track.includes(experiment.key) && analytics.track({
      userId: result.hashValue,
      event: "Experiment Viewed",
      properties: { experiment_id: experiment.key, variation_id: result.key },
      context: { traits: growthbook.getAttributes() },
    }),
  });
  const loaded = await growthbook.init({ timeout: 20000, streaming: true });
  if (!loaded.success) throw loaded.error;
  await tell(given.users.map((attributes) => {
    growthbook.setAttributes(attributes);
    return Object.fromEntries(given.flags.map((flag) => {
      const { source, value, experimentResult } = growthbook.evalFeature(flag);
      return [flag, [source === "experiment" ? experimentResult.key : null, value]];
    }));
  }));
  await analytics.closeAndFlush();
  if (given.awaited) {
    await new Promise((heard) => {
      growthbook.setRenderer(() => growthbook.isOn(given.awaited) && heard());
    });
    await tell(growthbook.getFeatureValue(given.awaited, null));
  }
  growthbook.destroy();
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
