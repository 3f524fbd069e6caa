// The hub of a scenario, as the stock Node client reaches it, and how refusals are printed.

export const k8s = await import(`file://${process.env.CLIENT_NODE}/dist/index.js`);

export const config = new k8s.KubeConfig();
config.loadFromDefault();

export const CLUSTERS = { group: 'cluster.open-cluster-management.io', version: 'v1', plural: 'managedclusters' };
export const custom = config.makeApiClient(k8s.CustomObjectsApi);
export const core = config.makeApiClient(k8s.CoreV1Api);
export const rbac = config.makeApiClient(k8s.RbacAuthorizationV1Api);
export const any = k8s.KubernetesObjectApi.makeApiClient(config);

export function cluster(name, labels) {
  return {
    apiVersion: 'cluster.open-cluster-management.io/v1',
    kind: 'ManagedCluster',
    metadata: { name, labels },
    spec: { hubAcceptsClient: false },
  };
}

// Says why a call was refused, as the client's own exception has it.
export async function refused(what, call) {
  try {
    await call;
  } catch (refusal) {
    if (!(refusal instanceof k8s.ApiException)) throw refusal;
    const status = typeof refusal.body === 'string' ? JSON.parse(refusal.body) : refusal.body;
    console.log([what, refusal.code, status.code === refusal.code, status.reason, status.message].join(' | '));
    return;
  }
  console.log(what, 'was not refused');
}
