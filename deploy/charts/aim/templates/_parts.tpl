{{- define "aim.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: aim
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- /* Labels for selectors: these never change. */}}
{{- define "aim.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- /* Labels of pods: without those that change with every chart version and would restart them. */}}
{{- define "aim.podLabels" -}}
{{ include "aim.selector" . }}
app.kubernetes.io/part-of: aim
{{- end }}

{{- define "aim.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "aim.labels" . | nindent 2 }}
{{- end }}

{{- define "aim.image" -}}
{{ .root.Values.image.registry }}/aim-{{ .image }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- /* "true" if NATS requires keys: with the bundled server unless turned off, with an external one if turned on. */}}
{{- define "aim.natsAuth" -}}
{{- $enabled := dig "auth" "enabled" nil .Values.nats }}
{{- if ternary $enabled .Values.nats.bundled (kindIs "bool" $enabled) }}true{{ end }}
{{- end }}

{{- define "aim.natsUrl" -}}
{{- if not .Values.nats.bundled }}{{ .Values.nats.url }}
{{- else }}{{ ternary "tls" "nats" (ne (include "aim.natsAuth" .) "") }}://aim-nats.{{ .Release.Namespace }}.svc:4222
{{- end }}
{{- end }}

{{- /* Scheduling of pods: the same for services and NATS. */}}
{{- define "aim.placement" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "aim.selector" $ | nindent 8 }}
  {{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Pod Security "restricted", and a read-only root filesystem. */}}
{{- define "aim.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- /* The securityContext of pods. On OpenShift, SecurityContextConstraints set user and group. */}}
{{- define "aim.podSecurity" -}}
runAsNonRoot: true
{{- if ne .root.Values.podSecurity "openshift" }}
runAsUser: {{ .id }}
runAsGroup: {{ .id }}
fsGroup: {{ .id }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "aim.disruption" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "aim.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "aim.selector" . | nindent 6 }}
{{- end }}

{{- /* With allInOne, what runs instead of the services: one process with the env of all of them. */}}
{{- define "aim.allInOne" -}}
{{- $env := dict }}
{{- $jobs := dict }}
{{- range $service, $own := .Values.services }}
{{- range $name, $value := $own.env }}
{{- if ne (get $env $name | default $value | toString) (toString $value) }}
{{- printf "services.%s.env.%s: with allInOne, the services have one environment; another service has another value" $service $name | fail }}
{{- end }}
{{- $_ := set $env $name (toString $value) }}
{{- end }}
{{- with $own.jobResources }}
{{- if ne (get $jobs "all" | default . | toJson) (toJson .) }}
{{- printf "services.%s.jobResources: with allInOne, all Jobs have the same; another service has another value" $service | fail }}
{{- end }}
{{- $_ := set $jobs "all" . }}
{{- end }}
{{- end }}
{{- $own := dict "env" $env "jobResources" (get $jobs "all" | default dict) "resources" (.Values.controlPlane).resources }}
{{- toYaml (dict "control-plane" $own) }}
{{- end }}

{{- /* The ServiceAccount of a service, by the name that the service has alone. */}}
{{- define "aim.accountName" -}}
{{ ternary "aim-control-plane" .name (.root.Values.allInOne | default false) }}
{{- end }}

{{- define "aim.isService" -}}
- {key: app.kubernetes.io/instance, operator: In, values: [{{ .Release.Name }}]}
- key: app.kubernetes.io/name
  operator: In
  values:
    {{- range $service, $_ := ternary (dict "control-plane" dict) .Values.services (.Values.allInOne | default false) }}
    - aim-{{ $service }}
    {{- end }}
{{- end }}

{{- define "aim.egressDns" -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: kube-system}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{- define "aim.egressApiServer" -}}
- to:
    {{- range .Values.networkPolicy.apiServer.cidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports:
    {{- range .Values.networkPolicy.apiServer.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}

{{- /* The connections between the servers of a cluster. */}}
{{- define "aim.natsPeers" -}}
- {{ .direction }}:
    - podSelector:
        matchLabels:
          {{- include "aim.selector" (dict "root" .root "name" "aim-nats") | nindent 10 }}
  ports:
    - {port: cluster, protocol: TCP}
{{- end }}

{{- /* The pod of the Job that creates the Secrets of NATS, with an image that runs anyway. */}}
{{- define "aim.natsInitPod" -}}
{{- $of := dict "root" $ "name" "aim-nats-init" -}}
metadata:
  labels:
    {{- include "aim.podLabels" $of | nindent 4 }}
spec:
  serviceAccountName: aim-nats-init
  automountServiceAccountToken: true
  enableServiceLinks: false
  restartPolicy: OnFailure
  securityContext:
    {{- include "aim.podSecurity" (dict "root" $ "id" 65532) | nindent 4 }}
  {{- include "aim.placement" $of | nindent 2 }}
  containers:
    - name: nats-init
      image: {{ include "aim.image" (dict "root" $ "image" (ternary "control-plane" "watcher" (.Values.allInOne | default false))) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [nats-init]
      {{- include "aim.containerSecurity" . | nindent 6 }}
      env:
        - {name: AIM_NAMESPACE, value: {{ .Release.Namespace | quote }}}
        - {name: AIM_LOG_FORMAT, value: {{ .Values.log.format | quote }}}
      resources:
        requests: {cpu: 50m, memory: 64Mi}
        limits: {memory: 256Mi}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 16Mi}
{{- end }}

{{- /*
--store_dir is an argument. Every write is synced: an acknowledged event survives power loss.
Without these limits a server would use the machine's disk and memory. 15% of the volume is for its
file system. The log, its mirror (aimbus.streams) and the history must fit. The monitoring port is on the pod's
address for the kubelet's probes. It shows names and counts, no payload, and changes nothing.
*/}}
{{- define "aim.natsConf" -}}
{{- $size := (include "aim.natsStorage" . | fromYaml).size }}
{{- $file := mulf (include "aim.bytes" $size) 0.85 | floor | int64 }}
{{- $log := .Values.nats.maxBytes | int64 }}
{{- $streams := add $log (max $log 268435456) (.Values.nats.historyMaxBytes | int64) }}
{{- if gt $streams $file }}
{{- printf "nats.maxBytes: the log, its mirror and the history may use %d bytes, but a volume of %s has room for %d; reduce nats.maxBytes or nats.historyMaxBytes, or increase nats.storage.size"
  $streams $size $file | fail }}
{{- end -}}
port: 4222
http_port: 8222
server_name: $SERVER_NAME
jetstream {
  sync_interval: always
  max_file_store: {{ $file }}
  {{- with dig "limits" "memory" "" (.Values.nats.resources | default dict) }}
  max_memory_store: {{ divf (include "aim.bytes" .) 4 | floor | int64 }}
  {{- end }}
}
{{- if include "aim.natsAuth" . }}
# relative to this file
include ../aim/nats-server/auth.conf
include ../aim/nats-server/tls.conf
{{- end }}
{{- if gt (int .Values.nats.replicas) 1 }}
cluster {
  name: aim
  port: 6222
  {{- if include "aim.natsAuth" . }}
  include ../aim/nats-server/tls.conf
  {{- end }}
  routes: [
    {{- range $i := until (int .Values.nats.replicas) }}
    nats://aim-nats-{{ $i }}.aim-nats-headless.{{ $.Release.Namespace }}.svc:6222
    {{- end }}
  ]
}
{{- end }}
{{- end }}

{{- /* A Kubernetes quantity as a number of bytes: 10Gi and 10240Mi are the same size. */}}
{{- define "aim.bytes" -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 }}
{{- range $power, $unit := list "Ki" "Mi" "Gi" "Ti" "Pi" "Ei" }}
{{- $_ := set $units $unit (index (list 1024 1048576 1073741824 1099511627776 1125899906842624 1152921504606846976) $power) }}
{{- end }}
{{- $text := kindIs "float64" . | ternary (printf "%.0f" .) (toString .) }}
{{- $number := regexFind "^[0-9.]+" $text }}
{{- printf "%.0f" (mulf $number (get $units (trimPrefix $number $text))) }}
{{- end }}

{{- /*
Size and class of the PVCs of NATS. A StatefulSet keeps the values of its creation. They are read
from the cluster, and other values are rejected before anything is applied. Without a cluster
(helm template) nothing is compared.
*/}}
{{- define "aim.natsStorage" -}}
{{- $namespace := .Release.Namespace }}
{{- $wanted := .Values.nats.storage }}
{{- $existing := lookup "apps/v1" "StatefulSet" $namespace "aim-nats" }}
{{- $claim := dig "spec" "volumeClaimTemplates" list $existing | first | default dict }}
{{- $size := dig "spec" "resources" "requests" "storage" "" $claim | toString }}
{{- $class := dig "spec" "storageClassName" "" $claim }}
{{- $select := "app.kubernetes.io/name=aim-nats" }}
{{- $replace := printf "kubectl -n %s delete statefulset aim-nats && kubectl -n %s delete pvc -l %s" $namespace $namespace $select }}
{{- if and $size $wanted.size (ne (include "aim.bytes" $size) (include "aim.bytes" $wanted.size)) }}
{{- $patch := printf `{"spec":{"resources":{"requests":{"storage":"%s"}}}}` $wanted.size }}
{{- $claims := printf "kubectl -n %s get pvc -l %s -o name" $namespace $select }}
{{- $grow := printf "%s | xargs -I CLAIM kubectl -n %s patch CLAIM --type=merge -p '%s' && kubectl -n %s delete statefulset aim-nats --cascade=orphan"
  $claims $namespace $patch $namespace }}
{{- $keep := ternary (printf " with nats.storage.className=%s" $class) "" (and (ne $class "") (eq $wanted.className "")) }}
{{- printf "nats.storage.size is %s, but StatefulSet aim-nats in %s has %s, which cannot be changed in place; nothing was applied.\nTo keep it: nats.storage.size=%s.\nTo grow it, if the storage class can expand volumes, run this, then helm again%s:\n  %s\nTo shrink it, or if volumes cannot be expanded (only the log of events is lost):\n  %s\n"
  $wanted.size $namespace $size $size $keep $grow $replace | fail }}
{{- end }}
{{- if and $existing $wanted.className (ne $class $wanted.className) }}
{{- printf "nats.storage.className is %s, but StatefulSet aim-nats in %s has %s, which cannot be changed in place; nothing was applied.\nTo keep it: remove nats.storage.className.\nTo change it (only the log of events is lost), run this, then helm again:\n  %s\n"
  $wanted.className $namespace ($class | default "the cluster's default class") $replace | fail }}
{{- end }}
size: {{ $wanted.size | default $size | default "10Gi" }}
className: {{ $wanted.className | default $class | quote }}
{{- end }}
