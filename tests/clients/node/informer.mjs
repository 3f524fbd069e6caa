// Prints what the stock Node informer of namespaces tells, and at the end of its input what it holds.

import { config, core, k8s } from './hub.mjs';

// The informer says nothing about a watch that is too old: it lists anew. So the watch under it says so.
class Watch extends k8s.Watch {
  watch(path, parameters, callback, done) {
    const seen = (type, object, ...rest) => {
      if (type === 'ERROR') console.log('error', object.code);
      return callback(type, object, ...rest);
    };
    return super.watch(path, parameters, seen, done);
  }
}

const RETRY_MILLISECONDS = 100;
const spaces = new k8s.ListWatch('/api/v1/namespaces', new Watch(config), () => core.listNamespace(), false);
for (const [verb, kind] of [['add', 'added'], ['update', 'modified'], ['delete', 'deleted']]) {
  spaces.on(verb, (space) => console.log(kind, space.metadata.name));
}
spaces.on('error', () => {
  console.log('error of the link');
  setTimeout(() => spaces.start(), RETRY_MILLISECONDS);
});
await spaces.start();
for await (const _ of process.stdin);
console.log('holds', ...spaces.list().map((space) => space.metadata.name).sort());
process.exit(0);
