// Lists, every kind of write, their refusals and watches, by the stock Node client.

import { CLUSTERS, any, cluster, config, core, custom, k8s, rbac, refused } from './hub.mjs';

const patchAs = (strategy) => k8s.setHeaderOptions('Content-Type', strategy);
const { JsonPatch, MergePatch, StrategicMergePatch, ServerSideApply } = k8s.PatchStrategy;
// The labels that a script set: the hub adds its own, whose names have a domain.
const mine = (labels) => JSON.stringify(Object.entries(labels ?? {}).filter(([name]) => !name.includes('/')).sort());
const merge = (body, name = 'one') => custom.patchClusterCustomObject({ ...CLUSTERS, name, body }, patchAs(MergePatch));

async function pages() {
  for (let number = 10; number < 35; number++) {
    await custom.createClusterCustomObject({ ...CLUSTERS, body: cluster(`c${number}`) });
  }
  const names = [];
  const moments = new Set();
  let token;
  do {
    const page = await custom.listClusterCustomObject({ ...CLUSTERS, limit: 10, _continue: token });
    console.log('page of', page.items.length, 'remaining', page.metadata.remainingItemCount);
    names.push(...page.items.map((item) => item.metadata.name));
    moments.add(page.metadata.resourceVersion);
    token = page.metadata.continue;
  } while (token);
  console.log('in order', names.every((name, index) => name === `c${index + 10}`), names.length, 'moments', moments.size);
  const all = await any.list('cluster.open-cluster-management.io/v1', 'ManagedCluster');
  console.log('by kind', all.items.length, all.kind);
  const deleted = await custom.deleteCollectionClusterCustomObject({ ...CLUSTERS });
  console.log('deleted all', deleted.kind);
}

async function writes() {
  const created = await any.create(cluster('one', { a: '1' }));
  const { taints, ...spec } = created.spec;
  console.log('created', created.kind, created.metadata.generation, JSON.stringify(spec), taints[0].key);
  await refused('again', any.create(cluster('one')));
  const merged = await merge({ metadata: { labels: { a: null, b: '2' } } });
  console.log('merged', mine(merged.metadata.labels));
  const operations = [{ op: 'add', path: '/metadata/labels/c', value: '3' }];
  const operated = await custom.patchClusterCustomObject({ ...CLUSTERS, name: 'one', body: operations }, patchAs(JsonPatch));
  console.log('by operations', mine(operated.metadata.labels));
  await refused('strategic', any.patch({ ...cluster('one'), spec: { leaseDurationSeconds: 30 } }));
  await refused('stale', any.replace(created));
  const { managedFields, ...metadata } = operated.metadata;
  const replaced = await any.replace({ ...operated, metadata, spec: { hubAcceptsClient: false, leaseDurationSeconds: 45 } });
  console.log('replaced', replaced.spec.leaseDurationSeconds, replaced.metadata.generation);
  const colour = { ...cluster('two'), spec: { hubAcceptsClient: false, colour: 'red' } };
  await refused('unknown', custom.createClusterCustomObject({ ...CLUSTERS, body: colour, fieldValidation: 'Strict' }));
  await refused('type', any.create({ ...cluster('two'), spec: { hubAcceptsClient: 'perhaps' } }));
  await any.create(cluster('two'), undefined, 'All');
  await refused('missing', any.read(cluster('two')));
  const apply = (manager, lease, force) =>
    any.patch({ ...cluster('two'), spec: { hubAcceptsClient: false, leaseDurationSeconds: lease } }, undefined, undefined, manager, force, ServerSideApply);
  console.log('applied', (await apply('first', 30)).spec.leaseDurationSeconds);
  await refused('conflict', apply('second', 31));
  console.log('forced', (await apply('second', 31, true)).spec.leaseDurationSeconds);
  const gone = await any.delete(cluster('two'));
  console.log('deleted', gone.status, gone.details.name);
  await refused('twice', any.delete(cluster('two')));
}

async function builtIn() {
  const space = await core.createNamespace({ body: { metadata: { name: 'work', labels: { a: '1' } } } });
  console.log('namespace', space.status.phase, space.metadata.creationTimestamp instanceof Date);
  const labels = { metadata: { labels: { b: '2' } } };
  const patched = await core.patchNamespace({ name: 'work', body: labels }, patchAs(StrategicMergePatch));
  console.log('strategic', mine(patched.metadata.labels));
  const rules = [{ apiGroups: [''], resources: ['secrets'], verbs: ['get'] }];
  const role = await rbac.createNamespacedRole({ namespace: 'work', body: { metadata: { name: 'reader' }, rules } });
  await rbac.patchNamespacedRole({ name: 'reader', namespace: 'work', body: labels }, patchAs(StrategicMergePatch));
  await refused('stale role', rbac.replaceNamespacedRole({ name: 'reader', namespace: 'work', body: role }));
  await refused('no namespace', rbac.createNamespacedRole({ namespace: 'nowhere', body: { metadata: { name: 'reader' } } }));
  const authorization = config.makeApiClient(k8s.AuthorizationV1Api);
  const resourceAttributes = { verb: 'proxy', group: CLUSTERS.group, resource: CLUSTERS.plural };
  const review = await authorization.createSelfSubjectAccessReview({ body: { spec: { resourceAttributes } } });
  console.log('may', review.status.allowed);
  const version = await config.makeApiClient(k8s.VersionApi).getCode();
  console.log('version', version.gitVersion[0]);
}

async function watches() {
  const begin = (await custom.listClusterCustomObject(CLUSTERS)).metadata.resourceVersion;
  await any.create(cluster('third'));
  const middle = (await merge({ metadata: { labels: { kept: 'yes' } } }, 'third')).metadata.resourceVersion;
  await any.delete(cluster('third'));
  const told = (what, parameters) =>
    new Promise((resolve, reject) => {
      const events = [];
      const path = '/apis/cluster.open-cluster-management.io/v1/managedclusters';
      const seen = (type, object) => events.push([type, object.metadata.name].filter(Boolean).join(' '));
      const done = (failure) => (failure ? reject(failure) : resolve(console.log(what, events.join(', '))));
      new k8s.Watch(config).watch(path, { timeoutSeconds: 1, ...parameters }, seen, done);
    });
  await told('all', { resourceVersion: begin });
  await told('rest', { resourceVersion: middle, allowWatchBookmarks: true });
  await told('selected', { resourceVersion: begin, labelSelector: 'kept=yes' });
  const streamed = { sendInitialEvents: true, resourceVersionMatch: 'NotOlderThan', allowWatchBookmarks: true };
  await told('streamed list', streamed);
}

await pages();
await writes();
await builtIn();
await watches();
