// The JavaScript SDK against the broker: sends in every way, reads everything back, prints one line of JSON.
// Arguments: connection string, hub. Run with tests/node as the module root.
import { createRequire } from "node:module";

const require = createRequire(new URL("../node/package.json", import.meta.url));
const { EventHubProducerClient, EventHubConsumerClient, earliestEventPosition } = require("@azure/event-hubs");

const [connectionString, hub] = process.argv.slice(2);
const producer = new EventHubProducerClient(connectionString, hub);
const properties = await producer.getEventHubProperties();
const partition = await producer.getPartitionProperties("1");

const keyed = await producer.createBatch({ partitionKey: "card-0" });
for (let index = 0; index < 250; index += 1) {
  keyed.tryAdd({ body: { index }, properties: { source: "js", index } });
}
await producer.sendBatch(keyed);
const placed = await producer.createBatch({ partitionId: "0" });
for (let index = 250; index < 500; index += 1) {
  placed.tryAdd({ body: { index }, properties: { source: "js", index } });
}
await producer.sendBatch(placed);
await producer.sendBatch([{ body: { index: 500 }, properties: { source: "js", index: 500 } }]);
await producer.close();

const consumer = new EventHubConsumerClient("$Default", connectionString, hub);
const seen = new Map();
const errors = [];
await new Promise((resolve) => {
  const timer = setTimeout(resolve, 25000);
  consumer.subscribe(
    {
      processEvents: async (events, context) => {
        for (const event of events) {
          seen.set(event.body.index, {
            partition: context.partitionId,
            key: event.partitionKey ?? null,
            sequence: event.sequenceNumber,
            offset: event.offset,
            source: event.properties.source,
            recent: Date.now() - event.enqueuedTimeUtc.getTime() < 60000,
            last: context.lastEnqueuedEventProperties?.sequenceNumber ?? null,
          });
        }
        if (seen.size >= 501) {
          clearTimeout(timer);
          resolve();
        }
      },
      processError: async (error) => errors.push(String(error)),
    },
    { startPosition: earliestEventPosition, trackLastEnqueuedEventProperties: true },
  );
});
await consumer.close();
console.log(JSON.stringify({ properties, partition, errors, events: Object.fromEntries(seen) }));
process.exit(0);
